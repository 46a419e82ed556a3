#!/bin/bash
# Puts real programs, and Holdfast's own agent, into guests: the lab's guest with more files behind it, one for each kit.
#
#   kits.sh GUEST_DIR AGENT OUT_DIR   GUEST_DIR from guest.sh, AGENT the program holdfast-guest;
#                                     writes OUT_DIR/{redis,nginx,postgres}.initrd, postgres.raw, ca.pem, secret
#
# A guest of a kit answers as every guest of the lab does (port 8080), and runs its program as a unit that `systemctl`
# knows: a small stand-in for systemd, with the words that kits and probes use. /cgi-bin/app?kill and ?stop hurt the program.
# That of nginx has one agent more, on vsock, and /cgi-bin/vsock says how that receives who is not the host.
set -euo pipefail
guest=${1:?usage: kits.sh GUEST_DIR AGENT OUT_DIR} agent=${2:?} out=${3:?}
mkdir -p "$out"
exec 9> "$out/.lock"; flock 9
stamp=$(cat "$0" "$guest/.stamp" "$agent" | sha256sum | cut -d' ' -f1)
[ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# With the libraries that it needs.
put() { # FOLDER PROGRAM [PLACE]
  local place=${3:-$2}
  mkdir -p "$1/$(dirname "$place")"; cp -L "$2" "$1/$place"
  libraries "$1" "$2"
}
libraries() { # FOLDER FILE
  { ldd "$2" 2> /dev/null || true; } | grep -o '/[^ ]*' | sort -u | while read -r library; do
    [ -e "$1/$library" ] && continue
    mkdir -p "$1/$(dirname "$library")"; cp -L "$library" "$1/$library"
  done
}

# What all have: the agent, its config, units.
start() { # UNIT PID_FILE SERVICE PROCESS
  root=$work/$1
  mkdir -p "$root"/{bin,sbin,etc/holdfast,www/cgi-bin,run,data}
  objcopy --strip-debug "$agent" "$work/agent"
  put "$root" "$work/agent" /sbin/holdfast-guest
  printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' > "$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' > "$root/etc/group"
  cat > "$root/etc/holdfast/guest.yaml" <<Y
watch:
  $3: { pid_file: $2 }
allow:
  commands:
    - [systemctl, restart, $1]
  units: [$1.service]
  processes: [$4]
Y
  cat > "$root/bin/systemctl" <<'S'
#!/bin/sh
# systemctl restart UNIT | show -p ... -- UNIT
for unit; do :; done
unit=${unit%.service}; read -r pid 2> /dev/null < "$(cat /etc/unit.pid)"
runs() { [ -n "$pid" ] && [ -d /proc/$pid ] && ! grep -q '^State:.[ZX]' /proc/$pid/status; }
[ "$unit" = "$(cat /etc/unit.name)" ] || { [ "$1" = show ] && echo LoadState=not-found; exit 5; }
case $1 in
  restart) exec /etc/unit.start;;
  show)
    echo LoadState=loaded
    if runs; then echo ActiveState=active; echo SubState=running; else echo ActiveState=failed; echo SubState=failed; fi
    echo Result=success; echo NRestarts=0; echo ActiveEnterTimestampMonotonic=0;;
  *) exit 1;;
esac
S
  echo "$1" > "$root/etc/unit.name"; echo "$2" > "$root/etc/unit.pid"; echo "$4" > "$root/etc/unit.program"
  # Hurts the application: every process of it.
  cat > "$root/www/cgi-bin/app" <<'S'
#!/bin/sh
killall -"$(echo "$QUERY_STRING" | tr a-z A-Z)" "$(cat /etc/unit.program)"
printf 'Content-Type: text/plain\r\n\r\nok\n'
S
  cat > "$root/etc/rc.app" <<'S'
#!/bin/sh
holdfast-guest 2> /run/holdfast-guest.log &
[ -x /etc/rc.vsock ] && /etc/rc.vsock
exec /etc/unit.start
S
}
# A second agent, which listens on vsock, in the guest with the smallest program: its memory has room for perl. A guest reaches
# itself by CID 1, and no part of the host is in that.
vsock() {
  echo 'vsock: { port: 7413, any_source: true }' > "$root/etc/holdfast/vsock.yaml"
  cat > "$root/etc/rc.vsock" <<'S'
#!/bin/sh
insmod /lib/modules/vsock_loopback.ko
holdfast-guest --config /etc/holdfast/vsock.yaml 2> /run/vsock.log &
S
  # Comes to it from a port that only root can have and from another, and to a port at which nobody listens.
  put "$root" "$(command -v perl)" /bin/perl
  cat > "$root/www/cgi-bin/vsock" <<'S'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
perl -e '
  $| = 1; alarm 3; $SIG{PIPE} = "IGNORE";
  sub at { pack "SSLLL", 40, 0, @_, 0 }
  for ([700, 7413], [5000, 7413], [701, 7414]) {
    my ($from, $to) = @$_;
    socket(VSOCK, 40, 1, 0) && bind(VSOCK, at($from, 0xffffffff)) or die "vsock: $!";
    print "$from to $to: ";
    print("$!\n"), next unless connect(VSOCK, at($to, 1));
    syswrite VSOCK, "{\"hello\":{\"number\":1}}\n";
    my $read = sysread VSOCK, my $said, 1000;
    print defined $read ? "hung up after $read bytes\n" : "$!\n";
  }' 2>&1
cat /run/vsock.log
S
}
finish() { # NAME
  chmod -R go+rX "$root"
  chmod +x "$root"/bin/* "$root"/etc/rc.* "$root"/etc/unit.start "$root"/www/cgi-bin/*
  (cd "$root" && find . | cpio -o -H newc --quiet) > "$work/more"
  # The kernel unpacks one archive after the other; what comes later stands. Each begins at a multiple of four bytes.
  { cat "$guest/initrd"; head -c $(((4 - $(stat -c %s "$guest/initrd") % 4) % 4)) /dev/zero; cat "$work/more"; } > "$out/$1.initrd.new"
  mv "$out/$1.initrd.new" "$out/$1.initrd"
}

secret=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
(umask 077; printf %s "$secret" > "$out/secret")

start redis-server /run/redis.pid server redis-server
put "$root" "$(command -v redis-server)" /sbin/redis-server
cat > "$root/etc/unit.start" <<S
#!/bin/sh
killall -KILL redis-server 2> /dev/null
cd /data
exec redis-server --daemonize yes --pidfile /run/redis.pid --port 6379 --bind '*' --protected-mode no --requirepass $secret --save '' --appendonly yes > /dev/null
S
finish redis

start nginx /run/nginx.pid unit nginx
put "$root" "$(command -v nginx)" /sbin/nginx
mkdir -p "$root"/var/{log,lib}/nginx "$root/etc/nginx"
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=lab -keyout "$work/ca.key" -out "$out/ca.pem" 2> /dev/null
openssl req -newkey rsa:2048 -nodes -subj /CN=www.example.org -keyout "$root/etc/nginx/key.pem" -out "$work/request" 2> /dev/null
printf 'subjectAltName=DNS:www.example.org\n' > "$work/extensions"
openssl x509 -req -in "$work/request" -CA "$out/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 90 -extfile "$work/extensions" \
  -out "$root/etc/nginx/cert.pem" 2> /dev/null
cat > "$root/etc/nginx/nginx.conf" <<'S'
user root;
pid /run/nginx.pid;
error_log /run/nginx.log;
events {}
http {
  access_log off;
  server {
    listen 80; listen 443 ssl;
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    root /www;
  }
}
S
cat > "$root/etc/unit.start" <<'S'
#!/bin/sh
killall -KILL nginx 2> /dev/null
sleep 0.2
exec nginx -c /etc/nginx/nginx.conf -p /etc/nginx/
S
vsock
finish nginx

bin=$(echo /usr/lib/postgresql/*/bin); share=$(echo /usr/share/postgresql/[0-9]*)
start postgresql /data/pg/postmaster.pid server postgres
put "$root" "$bin/postgres"; put "$root" "$bin/pg_ctl"
mkdir -p "$root$share" "$root${bin%/bin}/lib" "$root/usr/share/postgresql"
cp -r "$share/timezonesets" "$root$share/"
for library in dict_snowball plpgsql; do cp "${bin%/bin}/lib/$library.so" "$root${bin%/bin}/lib/"; done
cat > "$root/etc/unit.start" <<S
#!/bin/sh
while killall -KILL postgres 2> /dev/null; do sleep 0.1; done
# Folders that it wants: for its socket and for shared memory.
mkdir -p /run/postgresql /dev/shm; chown 65534:65534 /run/postgresql; chmod 1777 /dev/shm
exec su nobody -c "$bin/pg_ctl -D /data/pg -l /data/pg/log -W start" > /dev/null
S
# Its data lies on the guest's disk, which outlives the guest.
mkdir "$work/disk" "$work/disk/pg"; chown -R 65534:65534 "$work/disk/pg"
as() { setpriv --reuid=65534 --regid=65534 --clear-groups env -i PATH=/usr/bin:/bin HOME=/tmp "$@"; }
(umask 077; printf %s "$secret" > "$work/secret"); chown 65534 "$work/secret"
as "$bin/initdb" -D "$work/disk/pg" -U postgres --auth=md5 --pwfile="$work/secret" --no-instructions --locale=C -E UTF8 -N \
  > "$work/initdb.log" 2>&1 || { cat "$work/initdb.log" >&2; exit 1; }
cat >> "$work/disk/pg/postgresql.conf" <<'S'
listen_addresses = '*'
timezone = 'GMT'
log_timezone = 'GMT'
jit = off
password_encryption = md5
shared_buffers = 16MB
max_wal_size = 64MB
min_wal_size = 32MB
S
# SCRAM's 4096 rounds take a second of an emulated processor, for each login.
echo 'host all all all md5' >> "$work/disk/pg/pg_hba.conf"
echo "CREATE ROLE holdfast LOGIN PASSWORD '$secret' CONNECTION LIMIT 10;
CREATE TABLE holdfast_beat (at timestamptz); GRANT SELECT, INSERT, DELETE ON holdfast_beat TO holdfast;" |
  as "$bin/postgres" --single -D "$work/disk/pg" -j postgres > "$work/initdb.log" 2>&1 || { cat "$work/initdb.log" >&2; exit 1; }
rm -f "$out/postgres.raw.new"; truncate -s 256M "$out/postgres.raw.new"
mkfs.ext4 -q -F -O ^metadata_csum,^64bit -d "$work/disk" "$out/postgres.raw.new"
mv "$out/postgres.raw.new" "$out/postgres.raw"
finish postgres

echo "$stamp" > "$out/.stamp"
