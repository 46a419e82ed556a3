#!/bin/bash
# Makes the first files of a machine that plays a host with a watchdog of its own: the lab's guest with Holdfast's guard in
# it, and a shell that the lab speaks to.
#
#   machine.sh GUEST_DIR HOLDFAST OUT_DIR   GUEST_DIR from guest.sh, HOLDFAST the program; writes OUT_DIR/machine.initrd
#
# In the machine /holdfast is a disk that survives resets and holds the guard's state, /data is another disk, and /run dies
# with every boot. A line "N COMMAND" at the port lab.shell is run; what it says comes back, and then "END N CODE".
set -euo pipefail
guest=${1:?usage: machine.sh GUEST_DIR HOLDFAST OUT_DIR} holdfast=${2:?} out=${3:?}
mkdir -p "$out"
exec 9> "$out/.lock"; flock 9
# Not all of the program is read for it: that takes seconds, and each build writes it anew.
stamp=$({ cat "$0" "$guest/.stamp"; stat -L -c '%i %s %y' "$holdfast"; } | sha256sum | cut -d' ' -f1)
[ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
for program in socat objcopy cpio; do
  command -v "$program" > /dev/null || { echo "machine: $program is missing; tests/run.sh installs it" >&2; exit 1; }
done
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,sbin,etc,holdfast}

put() { # PROGRAM PLACE
  cp -L "$1" "$root/$2"
  ldd "$1" | grep -o '/[^ ]*' | sort -u | while read -r library; do
    mkdir -p "$root/$(dirname "$library")"; cp -L "$library" "$root/$library"
  done
}
objcopy --strip-all "$holdfast" "$work/holdfast"
put "$work/holdfast" /sbin/holdfast
put "$(command -v socat)" /bin/socat

"$holdfast" init --out "$work/init" --host m1=127.0.0.1 --voters m1 > /dev/null
cp -r "$work/init/m1" "$root/etc/holdfast"
grep -vE '^(state_dir|run_dir|watchdog):' "$work/init/m1/holdfast.yaml" > "$root/etc/holdfast/holdfast.yaml"
cat >> "$root/etc/holdfast/holdfast.yaml" <<'Y'
state_dir: /holdfast
run_dir: /run/holdfast
watchdog: { device: /dev/watchdog, timeout: 4s }
Y

cat > "$root/etc/rc.app" <<'S'
#!/bin/sh
mount -t ext4 /dev/vdb /holdfast
mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir /sys/fs/cgroup/web-1
shell() {
  # The port can be opened once, and says that nothing is to come while nobody is at its other end.
  exec 3<> /dev/virtio-ports/lab.shell
  while :; do
    if read -r number command <&3; then
      sh -c "$command" < /dev/null >&3 2>&1 3>&-
      echo "END $number $?" >&3
    else
      sleep 0.1
    fi
  done
}
shell &
S
cat > "$root/bin/guard" <<'S'
#!/bin/sh
# guard start | signal NAME | ask REQUEST | grant MILLISECONDS from now on
ask() { echo "$1" | socat -t 5 - UNIX-CONNECT:/run/holdfast/guard.sock; }
case $1 in
  start)
    # What it says outlives the boot, for people; what it must not lose it keeps itself.
    setsid holdfast guard --config /etc/holdfast/holdfast.yaml < /dev/null >> /holdfast/guard.log 2>&1 &
    echo $! > /run/guard.pid;;
  signal) kill -"$2" "$(cat /run/guard.pid)";;
  ask) ask "$2";;
  grant)
    # Seconds with two digits behind the point, on the clock of the lease.
    read -r up _ < /proc/uptime
    ask "{\"request\":\"grant\",\"deadline\":$((${up%.*}${up#*.} * 10 + $2))}";;
  *) exit 2;;
esac
S
cat > "$root/bin/guest" <<'S'
#!/bin/sh
# guest COMMAND...: runs it in the cgroup of a guest, whose registration is the lab's to make.
(echo 0 > /sys/fs/cgroup/web-1/cgroup.procs; exec "$@") < /dev/null > /dev/null 2>&1 &
S
chmod +x "$root"/bin/* "$root"/sbin/* "$root/etc/rc.app"
chmod 600 "$root"/etc/holdfast/*.key

(cd "$root" && find . | cpio -o -H newc --quiet) > "$work/more"
# The kernel unpacks one archive after the other; what comes later stands. Each begins at a multiple of four bytes.
{ cat "$guest/initrd"; head -c $(((4 - $(stat -c %s "$guest/initrd") % 4) % 4)) /dev/zero; cat "$work/more"; } > "$out/machine.initrd.new"
mv "$out/machine.initrd.new" "$out/machine.initrd"
echo "$stamp" > "$out/.stamp"
