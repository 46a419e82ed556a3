#!/bin/bash
# Builds the guest of the lab and the quickstart from Debian packages: a kernel, an initial RAM disk and an empty data disk.
#
#   guest.sh OUT_DIR    writes OUT_DIR/{vmlinux,initrd,data.raw}; does nothing when they are there and this script is unchanged
#
# The guest brings up eth0 from the kernel command line (lab.ip=10.77.0.100/24 lab.name=web-1), mounts its data disk,
# records the boot on it, answers http://IP:8080/healthz with "ok" and runs the QEMU guest agent.
set -euo pipefail
out=${1:?usage: guest.sh OUT_DIR}
mkdir -p "$out"
exec 9> "$out/.lock"; flock 9
stamp=$(sha256sum "$0" | cut -d' ' -f1)
[ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
echo "guest: fetching the kernel and the guest agent from Debian" >&2
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1)
[ -n "$kernel" ] || { echo "guest: apt knows no linux-image-amd64; run apt-get update first" >&2; exit 1; }
# A mirror may be away for a moment.
for try in 1 2 3 4; do
  (cd "$work" && apt-get -qq -o Acquire::Retries=3 download "$kernel" qemu-guest-agent busybox 2> apt.log) && break
  cat "$work/apt.log" >&2
  [ "$try" = 4 ] && exit 1
  echo "guest: apt-get download failed (try $try of 4), again in 10 s" >&2
  sleep 10
done
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/unpacked"; done
version=$(ls "$work/unpacked/lib/modules")
modules=$work/unpacked/lib/modules/$version

root=$work/root
mkdir -p "$root"/{bin,sbin,proc,sys,dev,run,tmp,data,etc,lib/modules,www/cgi-bin,usr/bin,usr/sbin,var}
ln -s /run "$root/var/run"
cp /bin/busybox "$root/bin/busybox"
# "busybox" itself is on its own list; linking it would make a loop.
"$root/bin/busybox" --list | grep -vx busybox | while read -r name; do ln -sf /bin/busybox "$root/bin/$name"; done
# The static wget ends by a signal in the resolver, which wants libraries of its own; the dynamic one does not.
rm "$root/bin/wget"
cp "$work/unpacked/bin/busybox" "$root/bin/wget"
cp "$work/unpacked/usr/sbin/qemu-ga" "$root/sbin/qemu-ga"
for program in "$root/bin/wget" "$root/sbin/qemu-ga"; do
  if ldd "$program" | grep -q 'not found'; then ldd "$program" | grep 'not found' >&2; exit 1; fi
  ldd "$program" | grep -o '/[^ ]*' | sort -u | while read -r library; do
    mkdir -p "$root/$(dirname "$library")"; cp -L "$library" "$root/$library"
  done
done

order=()
add_module() { # with what it depends on, in the order in which they must be loaded
  local file dependency name
  file=$(find "$modules" -name "${1//_/[-_]}.ko" | head -1)
  [ -n "$file" ] || return 0 # built into the kernel
  for dependency in $(modinfo -F depends "$file" | tr , ' '); do add_module "$dependency"; done
  name=$(basename "$file")
  case " ${order[*]:-} " in *" $name "*) return 0;; esac
  order+=("$name"); cp "$file" "$root/lib/modules/"
}
for module in virtio_pci virtio_net virtio_blk crc32c_generic ext4; do add_module "$module"; done
printf '%s\n' "${order[@]}" > "$root/lib/modules/first"
order_first=${#order[@]}
for module in virtio_console virtio_rng virtio_balloon i6300esb pvpanic_mmio vmw_vsock_virtio_transport; do add_module "$module"; done
printf '%s\n' "${order[@]:$order_first}" > "$root/lib/modules/second"
# Not loaded here: it leads over vsock from a guest to itself, which one kit tries.
add_module vsock_loopback

cat > "$root/init" <<'I'
#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
while read -r module; do insmod /lib/modules/$module; done < /lib/modules/first
for word in $(cat /proc/cmdline); do case $word in lab.*=*) key=${word%%=*}; eval "lab_${key#lab.}='${word#*=}'";; esac; done
hostname ${lab_name:-guest}
ip link set lo up
if [ -n "$lab_ip" ]; then
  ip link set eth0 up; ip addr add $lab_ip dev eth0
  echo 50 > /proc/sys/net/ipv4/neigh/eth0/retrans_time_ms
fi
# The record of who ran when: one line for each boot, and a count while it runs.
if [ -b /dev/vda ] && mount -t ext4 /dev/vda /data; then
  boots=$(($(wc -l 2>/dev/null < /data/boots || echo 0) + 1))
  read -r boot_id < /proc/sys/kernel/random/boot_id
  echo "boot $boots $boot_id $(date +%s)" >> /data/boots
  sync
  # Beside it the application reports in, until it is told to hush.
  ( count=0; while sleep 1; do
      count=$((count+1)); echo "$boots $boot_id $count $(date +%s)" > /data/count
      [ -e /run/hush ] || echo up > /run/heartbeat
    done ) &
fi
# A guest that should have a disk and has none must not claim to be well.
if [ -z "$lab_disk" ] || [ -e /data/boots ]; then /bin/restart-app; fi
if [ -n "$lab_ip" ]; then
  # So that switches learn at once where the guest is.
  ( for i in 1 2 3; do arping -q -U -c 1 -I eth0 ${lab_ip%/*}; arping -q -A -c 1 -I eth0 ${lab_ip%/*}; sleep 1; done ) > /dev/null 2>&1 &
fi
while read -r module; do insmod /lib/modules/$module 2> /dev/null; done < /lib/modules/second
mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
  [ -e $port/name ] && ln -sf /dev/${port##*/} /dev/virtio-ports/$(cat $port/name)
done
channel=/dev/virtio-ports/org.qemu.guest_agent.0
[ -e $channel ] && qemu-ga -m virtio-serial -p $channel -d -f /run/qga.pid -t /run -l /run/qga.log
# What a kit has put in.
[ -x /etc/rc.app ] && /etc/rc.app
[ -n "$lab_watchdog" ] && [ -e /dev/watchdog ] && watchdog -T $lab_watchdog -t 2 /dev/watchdog
exec /bin/init
I
cat > "$root/bin/restart-app" <<'I'
#!/bin/sh
# Starts the application again, whatever state it is in.
killall -9 httpd 2> /dev/null
exec httpd -p 8080 -h /www < /dev/null > /dev/null 2>&1
I
# Ways to hurt the application, for the lab: slow on demand, killed, hanging, without a heartbeat, and the whole kernel gone.
printf '#!/bin/sh\nkillall -9 httpd\n' > "$root/www/cgi-bin/crash"
printf '#!/bin/sh\n[ -e /run/lazy ] && sleep 2\nprintf "Content-Type: text/plain\\r\\n\\r\\nok\\n"\n' > "$root/www/cgi-bin/lazy"
for word in on off; do
  [ $word = on ] && what=': > /run/lazy' || what='rm -f /run/lazy'
  printf '#!/bin/sh\n%s\nprintf "Content-Type: text/plain\\r\\n\\r\\nok\\n"\n' "$what" > "$root/www/cgi-bin/lazy-$word"
done
answer='printf "Content-Type: text/plain\r\n\r\nok\n"'
printf '#!/bin/sh\n: > /run/hush\n%s\n' "$answer" > "$root/www/cgi-bin/hush"
printf '#!/bin/sh\n: > /run/hush; sleep 1; echo down > /run/heartbeat\n%s\n' "$answer" > "$root/www/cgi-bin/going-down"
printf '#!/bin/sh\nrm -f /run/hush\n%s\n' "$answer" > "$root/www/cgi-bin/back"
printf '#!/bin/sh\nkillall -STOP httpd\n' > "$root/www/cgi-bin/hang"
printf '#!/bin/sh\necho c > /proc/sysrq-trigger\n' > "$root/www/cgi-bin/panic"
# busy?N has memory of so many MiB written over again and again, which a live move has to send anew each time; busy?0 ends that. N is
# a multiple of 6: in small pieces, starting dd takes an emulated processor longer than what it writes.
cat > "$root/www/cgi-bin/busy" <<'I'
#!/bin/sh
read -r loop 2> /dev/null < /run/busy.pid && kill "$loop"
rm -f /run/busy.pid /run/busy
mib=${QUERY_STRING:-0}
if [ "$mib" -gt 0 ]; then
  # Not zeros: of pages that hold nothing else QEMU sends no more than that.
  [ -e /run/noise ] || dd if=/dev/urandom of=/run/noise bs=1M count=6 2> /dev/null
  ( while :; do
      at=0
      while [ $at -lt "$mib" ]; do dd if=/run/noise of=/run/busy bs=1M seek=$at conv=notrunc; at=$((at+6)); done
    done ) < /dev/null > /dev/null 2>&1 &
  echo $! > /run/busy.pid
  # Answers come first.
  renice -n 10 -p $! > /dev/null 2>&1
fi
printf 'Content-Type: text/plain\r\n\r\nok\n'
I
cat > "$root/www/cgi-bin/who" <<'I'
#!/bin/sh
read -r up _ < /proc/uptime
read -r boot_id < /proc/sys/kernel/random/boot_id
printf 'Content-Type: application/json\r\n\r\n{"name":"%s","boot_id":"%s","uptime":%s,"boots":%s}\n' "$(hostname)" "$boot_id" "$up" "$(wc -l 2>/dev/null < /data/boots || echo 0)"
I
cat > "$root/sbin/shutdown" <<'I'
#!/bin/sh
# Called by the guest agent: shutdown [-h] -P|-H|-r +0 "message"
sync; umount /data 2> /dev/null
case " $* " in *" -r "*) reboot -f;; *" -H "*) halt -f;; *) poweroff -f;; esac
I
echo ok > "$root/www/healthz"
echo "hello from a Holdfast guest" > "$root/www/index.html"
printf '::ctrlaltdel:/bin/reboot -f\n::respawn:/bin/sleep 100000\n' > "$root/etc/inittab"
echo root:x:0:0:root:/:/bin/sh > "$root/etc/passwd"; echo root:x:0: > "$root/etc/group"
chmod +x "$root/init" "$root"/bin/restart-app "$root"/www/cgi-bin/* "$root/sbin/shutdown"

(cd "$root" && find . | cpio -o -H newc --quiet) > "$out/initrd.new"
# The kernel is unpacked here, once: in software emulation a guest takes over two seconds for it at every boot.
# The boot header says where the packed kernel lies (512-byte setup sectors at 0x1f1; offset and length at 0x248).
packed=$work/unpacked/boot/vmlinuz-$version
field() { od -An -t "u$2" -j "$1" -N "$2" "$packed" | tr -d ' '; }
start=$((($(field $((0x1f1)) 1) + 1) * 512 + $(field $((0x248)) 4)))
length=$(field $((0x24c)) 4)
head -c $((start + length)) "$packed" | tail -c "$length" | xz -dc --single-stream > "$out/vmlinux.new" \
  || { echo "guest: cannot unpack the kernel (not compressed with xz?)" >&2; exit 1; }
rm -f "$out/data.raw.new"; truncate -s 32M "$out/data.raw.new"
mkfs.ext4 -q -F -O ^metadata_csum,^64bit -E lazy_itable_init=0,lazy_journal_init=0 "$out/data.raw.new"
for file in vmlinux initrd data.raw; do mv "$out/$file.new" "$out/$file"; done
echo "$stamp" > "$out/.stamp"
echo "guest: built $out (Linux $version)" >&2
