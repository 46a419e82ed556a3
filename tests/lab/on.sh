#!/bin/bash
# Runs a command on a lab host, in all of its namespaces: on.sh LAB HOST COMMAND ARGUMENTS...
# "holdfast" stands for the lab's holdfast with the host's host file.
lab=${1:?usage: on.sh LAB HOST COMMAND...} host=${2:?}; shift 2
. "$lab/lab.env"
for pid in $(cat "$cgroup_root/$prefix/$host/sys/cgroup.procs" 2> /dev/null); do
  case $(grep NSpid "/proc/$pid/status" 2> /dev/null) in *[[:space:]]1) init=$pid; break;; esac
done
[ -n "${init:-}" ] || { echo "$host is off" >&2; exit 1; }
[ -L "$lab/hosts/$host/holdfast" ] && holdfast=$lab/hosts/$host/holdfast
[ "${1:-}" = holdfast ] && { shift; set -- "$holdfast" --config "$lab/etc/$host/holdfast.yaml" "$@"; }
exec nsenter -t "$init" -m -u -i -n -p -C -- "$@"
