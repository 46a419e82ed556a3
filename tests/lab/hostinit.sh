#!/bin/bash
# PID 1 of a lab host: hostinit.sh LAB HOST
#
# What dies with the power is on tmpfs (/run); LAB/hosts/HOST is the host's disk. The guard and the supervisor are
# started, and started again when they end, as long as /run/lab/want-NAME exists; their pids are in /run/lab/NAME.pid.
lab=$1 host=$2 disk=$1/hosts/$2
. "$lab/lab.env" # holdfast, shared
# A host with a program of its own, which may be replaced while it runs: what is started after that is the new one.
[ -L "$disk/holdfast" ] && holdfast=$disk/holdfast
hostname "$host"
umount -l /sys && mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/sys /sys/fs/cgroup/guests && echo 1 > /sys/fs/cgroup/sys/cgroup.procs
umount -R /run/netns 2> /dev/null
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/lab /run/lock /run/holdfast
# The shared storage also has the name that an operator would give it, the same on every host.
mount -t tmpfs -o mode=755 tmpfs /srv && mkdir /srv/holdfast && mount --bind "$shared" /srv/holdfast
cd /

keep() { # NAME COMMAND...
  local name=$1 code; shift
  while :; do
    [ -e "/run/lab/want-$name" ] || { sleep 0.1; continue; }
    echo "--- $(date +%T.%N) $name starts" >> "$disk/$name.log"
    "$@" < /dev/null >> "$disk/$name.log" 2>&1 &
    echo $! > "/run/lab/$name.pid"
    wait $!; code=$?
    rm -f "/run/lab/$name.pid"
    echo "--- $(date +%T.%N) $name ended with $code" >> "$disk/$name.log"
    sleep 0.2
  done
}

if [ -n "$holdfast" ] && [ -e "$lab/etc/$host/holdfast.yaml" ]; then
  touch /run/lab/want-guard /run/lab/want-supervisor
  keep guard "$holdfast" guard --config "$lab/etc/$host/holdfast.yaml" &
  for _ in $(seq 50); do [ -e /run/lab/guard.pid ] && break; sleep 0.01; done
  # What its unit sets (examples/packaging/holdfast.service).
  keep supervisor env MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=131072 "$holdfast" run --config "$lab/etc/$host/holdfast.yaml" &
fi
touch /run/lab/booted
# Orphans (guests outlive the supervisor that started them) end up here and are reaped by the shell.
while :; do sleep 3600 & wait $!; done
