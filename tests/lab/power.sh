#!/bin/bash
# The power of one lab host: power.sh LAB HOST on|off|reset|state
#
# A host is one killable unit: a cgroup v2 subtree, a network namespace and own PID, mount, UTS, IPC and cgroup
# namespaces. "off" takes the links down first, as real power loss does: a namespace that outlives its processes would
# still answer ping and send FINs.
set -u
lab=$1 host=$2
here=$(dirname "$(readlink -f "$0")")
. "$lab/lab.env" # prefix, cgroup_root
. "$lab/hosts/$host/host.env" # number, address, management, mac
cgroup=$cgroup_root/$prefix/$host
disk=$lab/hosts/$host
space=$prefix-$host

populated() { grep -qs '^populated 1' "$cgroup/cgroup.events"; }

links_down() {
  ip -n "$prefix-sw" link set "p-$host" down 2> /dev/null
  ip -n "$prefix-mg" link set "m-$host" down 2> /dev/null
}

off() {
  links_down
  [ -d "$cgroup" ] || return 0
  echo 1 > "$cgroup/cgroup.kill"
  for _ in $(seq 2000); do populated || break; sleep 0.005; done
  populated && { echo "$host: processes survive cgroup.kill" >&2; return 1; }
  # Without power no watchdog counts.
  [ -e "$disk/watchdog/power" ] && echo off > "$disk/watchdog/power"
  # A frozen group would freeze the next boot too.
  echo 0 > "$cgroup/cgroup.freeze"
  find "$cgroup" -mindepth 1 -depth -type d -exec rmdir {} + 2> /dev/null
  return 0
}

network() { # everything anew: what a boot finds is what a boot made
  ip -n "$prefix-sw" link del "p-$host" 2> /dev/null
  ip -n "$prefix-mg" link del "m-$host" 2> /dev/null
  ip netns del "$space" 2> /dev/null
  ip netns add "$space" || return 1
  nsenter --net="/run/netns/$space" sh -c 'for i in all default; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done'
  ip link add up0 netns "$space" type veth peer name "p-$host" netns "$prefix-sw" || return 1
  ip link add mg0 netns "$space" type veth peer name "m-$host" netns "$prefix-mg" || return 1
  ip -n "$space" -batch - <<B || return 1
link set lo up
link add br0 address $mac type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set up0 master br0 up
addr add $address/24 dev br0
link set br0 up
addr add $management/24 dev mg0
link set mg0 up
B
  nsenter --net="/run/netns/$space" sh -c 'for i in br0 mg0; do echo 50 > /proc/sys/net/ipv4/neigh/$i/retrans_time_ms; done'
  ip -n "$prefix-sw" link set "p-$host" master sw0
  ip -n "$prefix-mg" link set "m-$host" master mg0
  [ -e "$disk/cable-pulled" ] || ip -n "$prefix-sw" link set "p-$host" up
  ip -n "$prefix-mg" link set "m-$host" up
}

on() {
  populated && return 0
  network || { echo "$host: cannot make the network" >&2; return 1; }
  mkdir -p "$cgroup" || return 1
  ( echo "$BASHPID" > "$cgroup/cgroup.procs" || exit 1
    # Descriptors of whoever pressed the button must not live on in the host.
    for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done
    exec setsid nsenter --net="/run/netns/$space" unshare --mount --uts --ipc --pid --cgroup --fork --kill-child \
      --propagation private --mount-proc "$here/hostinit.sh" "$lab" "$host"
  ) < /dev/null >> "$disk/console.log" 2>&1 &
  for _ in $(seq 2000); do populated && return 0; sleep 0.005; done
  echo "$host: did not boot, see $disk/console.log" >&2
  return 1
}

case ${3:-} in
  state) if populated; then echo on; else echo off; fi;;
  on|off) exec 9> "$disk/power.lock"; flock 9; "$3";;
  reset) exec 9> "$disk/power.lock"; flock 9; off && on;;
  *) echo "usage: power.sh LAB HOST on|off|reset|state" >&2; exit 2;;
esac
