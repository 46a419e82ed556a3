#!/bin/bash
# Puts real programs, and Holdfast's own agent, into guests: the lab's guest with more files behind it, one for each kit.
#
#   kits.sh GUEST_DIR AGENT OUT_DIR [rabbitmq]   GUEST_DIR from guest.sh, AGENT the program holdfast-guest; writes
#                                     OUT_DIR/{redis,nginx,apache,mysql,postgres}.initrd, {mysql,postgres}.raw, ca.pem, secret
#
# A guest of a kit answers as every guest of the lab does (port 8080), and runs its program as a unit that `systemctl`
# knows: a small stand-in for systemd, with the words that kits and probes use. /cgi-bin/app?kill and ?stop hurt the program.
# That of nginx has one agent more, on vsock, and /cgi-bin/vsock says how that receives who is not the host.
set -euo pipefail
guest=${1:?usage: kits.sh GUEST_DIR AGENT OUT_DIR [rabbitmq]} agent=${2:?} out=${3:?} more=${4:-}
mkdir -p "$out"
exec 9> "$out/.lock"; flock 9
stamp=$(cat "$0" "$guest/.stamp" "$agent" - <<< "$more" | sha256sum | cut -d' ' -f1)
[ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0

# Of several PostgreSQL the newest; where there is none, the name stays a pattern.
postgres=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -1)
# All that is missing is said at once, before anything is made. A program, and Debian's package that has it.
missing=()
while read -r program package; do
  command -v "$program" > /dev/null || missing+=("$package")
done <<P
redis-server redis-server
nginx nginx-light
$postgres postgresql
mariadbd mariadb-server
apache2 apache2-bin
perl perl-base
openssl openssl
objcopy binutils
cpio cpio
mkfs.ext4 e2fsprogs
P
if [ ${#missing[@]} -gt 0 ]; then
  echo "kits: what goes into the guests is missing here; install it with: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# With the libraries that it needs.
put() { # FOLDER PROGRAM [PLACE]
  local place=${3:-$2}
  mkdir -p "$1/$(dirname "$place")"; cp -L "$2" "$1/$place"
  libraries "$1" "$2"
}
libraries() { # FOLDER FILE
  { ldd "$2" 2> /dev/null | grep -o '/[^ ]*' || true; } | sort -u | while read -r library; do
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

bin=${postgres%/postgres} share=/usr/share/postgresql/$(basename "${postgres%/bin/postgres}")
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

start apache2 /run/apache2.pid workers apache2
put "$root" "$(command -v apache2)" /sbin/apache2
modules=/usr/lib/apache2/modules
mkdir -p "$root$modules" "$root/etc/apache2"
for module in mpm_event authz_core dir; do put "$root" "$modules/mod_$module.so"; done
# Threads as Debian has them.
cat > "$root/etc/apache2/apache2.conf" <<S
ServerName www.example.org
PidFile /run/apache2.pid
ErrorLog /run/apache2.log
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule dir_module $modules/mod_dir.so
StartServers 2
MinSpareThreads 25
MaxSpareThreads 75
ThreadsPerChild 25
MaxRequestWorkers 150
User nobody
Group nogroup
Listen 80
DocumentRoot /www
S
cat > "$root/etc/unit.start" <<'S'
#!/bin/sh
while killall -KILL apache2 2> /dev/null; do sleep 0.1; done
exec apache2 -d /etc/apache2 -f apache2.conf -k start
S
finish apache

start mysql /run/mysqld/mysqld.pid login mariadbd
put "$root" "$(command -v mariadbd)" /sbin/mariadbd
share=/usr/share/mysql
mkdir -p "$root$share" "$root/usr/lib/mysql/plugin" "$root/etc/mysql"
cp -r "$share/english" "$share/charsets" "$root$share/"
# An elliptic curve, as an emulated processor takes a while for RSA.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=mysql-1 \
  -keyout "$root/etc/mysql/key.pem" -out "$root/etc/mysql/cert.pem" 2> /dev/null
cat > "$root/etc/mysql/my.cnf" <<S
[mysqld]
datadir = /data/mysql
pid-file = /run/mysqld/mysqld.pid
socket = /run/mysqld/mysqld.sock
lc-messages-dir = $share
character-sets-dir = $share/charsets
plugin-dir = /usr/lib/mysql/plugin
ssl-cert = /etc/mysql/cert.pem
ssl-key = /etc/mysql/key.pem
tmpdir = /run/mysqld
innodb-buffer-pool-size = 16M
skip-name-resolve
S
cat > "$root/etc/unit.start" <<'S'
#!/bin/sh
while killall -KILL mariadbd 2> /dev/null; do sleep 0.1; done
mkdir -p /run/mysqld; chown 65534:65534 /run/mysqld
exec setsid mariadbd --defaults-file=/etc/mysql/my.cnf --user=nobody < /dev/null > /run/mysqld.log 2>&1 &
S
mkdir "$work/tables" "$work/tables/mysql"; chown 65534:65534 "$work/tables/mysql"
mysql=("--no-defaults" "--datadir=$work/tables/mysql" "--innodb-log-file-size=8M" "--innodb-buffer-pool-size=16M")
as mariadb-install-db "${mysql[@]}" --auth-root-authentication-method=normal --skip-test-db > "$work/tables.log" 2>&1 \
  || { cat "$work/tables.log" >&2; exit 1; }
# A statement in each line.
echo "FLUSH PRIVILEGES;
CREATE USER holdfast@'%' IDENTIFIED BY '$secret';
CREATE DATABASE ops;
CREATE TABLE ops.holdfast_beat (id INT PRIMARY KEY, at TIMESTAMP);
GRANT SELECT, INSERT, DELETE ON ops.holdfast_beat TO holdfast@'%';" > "$work/tables.sql"
as "$(command -v mariadbd)" "${mysql[@]}" --bootstrap < "$work/tables.sql" > "$work/tables.log" 2>&1 || { cat "$work/tables.log" >&2; exit 1; }
rm -f "$out/mysql.raw.new"; truncate -s 256M "$out/mysql.raw.new"
mkfs.ext4 -q -F -O ^metadata_csum,^64bit -d "$work/tables" "$out/mysql.raw.new"
mv "$out/mysql.raw.new" "$out/mysql.raw"
finish mysql

# Not at every test run: its start takes about a minute of an emulated processor, and each question to it ten seconds and more.
rabbitmq() {
  local packages unpacked=$work/unpacked file
  packages=(rabbitmq-server erlang-{base,asn1,crypto,eldap,inets,mnesia,os-mon,parsetools,public-key,runtime-tools,ssl,syntax-tools,tools,xmerl}
    python3-minimal python3.11-minimal libpython3.11-{minimal,stdlib})
  (mkdir "$work/packages" && cd "$work/packages" && apt-get -qq -o Acquire::Retries=3 download "${packages[@]}" 2> "$work/apt.log") \
    || { cat "$work/apt.log" >&2; exit 1; }
  for file in "$work"/packages/*.deb; do dpkg-deb -x "$file" "$unpacked"; done
  start rabbitmq-server /run/rabbitmq/pid running beam.smp
  mkdir -p "$root"/usr/{bin,lib,sbin} "$root"/var/{lib,log} "$root/etc/rabbitmq"
  ln -s /data/rabbitmq "$root/var/lib/rabbitmq"; ln -s /data/rabbitmq/log "$root/var/log/rabbitmq"
  cp -a "$unpacked"/usr/lib/{erlang,rabbitmq,python3.11} "$root/usr/lib/"
  cp -a "$unpacked"/usr/bin/{erl,escript,epmd,python3,python3.11,rabbitmqadmin} "$root/usr/bin/"
  cp -a "$unpacked"/usr/sbin/rabbitmq* "$root/usr/sbin/"
  find "$root/usr/lib/erlang" "$root/usr/lib/python3.11" "$root/usr/bin" -type f \( -name '*.so' -o -perm -100 \) |
    while read -r file; do libraries "$root" "$file"; done
  printf 'rabbitmq:x:100:100::/var/lib/rabbitmq:/bin/sh\n' >> "$root/etc/passwd"; printf 'rabbitmq:x:100:\n' >> "$root/etc/group"
  printf 'hosts: files\n' > "$root/etc/nsswitch.conf"; printf '127.0.0.1 localhost rabbitmq-1\n' > "$root/etc/hosts"
  echo '[rabbitmq_management].' > "$root/etc/rabbitmq/enabled_plugins"
  echo PID_FILE=/run/rabbitmq/pid > "$root/etc/rabbitmq/rabbitmq-env.conf"
  cat > "$root/etc/unit.start" <<'S'
#!/bin/sh
while killall -KILL beam.smp 2> /dev/null; do sleep 0.1; done
mkdir -p /run/rabbitmq; chown rabbitmq: /run/rabbitmq
cd /data/rabbitmq
exec setsid su -s /bin/sh rabbitmq -c "exec /usr/sbin/rabbitmq-server" < /dev/null > /run/rabbitmq.log 2>&1 &
S
  mkdir -p "$work/queues/rabbitmq"/{mnesia,log}; openssl rand -base64 -out "$work/queues/rabbitmq/.erlang.cookie" 42
  chmod 400 "$work/queues/rabbitmq/.erlang.cookie"; chown -R 100:100 "$work/queues/rabbitmq"
  rm -f "$out/rabbitmq.raw.new"; truncate -s 256M "$out/rabbitmq.raw.new"
  mkfs.ext4 -q -F -O ^metadata_csum,^64bit -d "$work/queues" "$out/rabbitmq.raw.new"
  mv "$out/rabbitmq.raw.new" "$out/rabbitmq.raw"
  finish rabbitmq
}
if [ "$more" = rabbitmq ]; then rabbitmq; fi

echo "$stamp" > "$out/.stamp"
