#!/bin/sh
# The chassis of one lab host, as its simulated BMC (ipmi_sim's chassis_control) sees it:
#
#   bmc.sh LAB HOST get power            prints power:0 or power:1, the truth
#   bmc.sh LAB HOST set power 0|1        the power button
#
# LAB/bmc/HOST.fail: the BMC reports an error. HOST.slow: it takes so many seconds (0.5). HOST.stuck: it says "ok" and does nothing.
# HOST.says-off: it says that the power is off, whatever is so.
lab=$1 host=$2 what=$3; shift 3
bmc=$lab/bmc/$host
here=$(dirname "$0")
echo "$(date +%s.%N) $what $*" >> "$bmc.log"
[ -e "$bmc.slow" ] && sleep "$(cat "$bmc.slow")"
[ -e "$bmc.fail" ] && exit 1

press() { # power 0|1, reset 1, shutdown 1
  [ -e "$bmc.stuck" ] && return 0
  case "$1 $2" in
    "power 0"|"shutdown 1") "$here/power.sh" "$lab" "$host" off;;
    "power 1") "$here/power.sh" "$lab" "$host" on;;
    "reset 1") "$here/power.sh" "$lab" "$host" off && "$here/power.sh" "$lab" "$host" on;;
  esac
}

case $what in
  get)
    for item; do
      case $item in
        power)
          state=$("$here/power.sh" "$lab" "$host" state)
          [ -e "$bmc.says-off" ] && state=off
          case $state in on) echo power:1;; *) echo power:0;; esac;;
        *) echo "$item:0";;
      esac
    done;;
  set) while [ $# -gt 1 ]; do press "$1" "$2" >> "$bmc.log" 2>&1 || exit 1; shift 2; done;;
  check) :;;
  *) exit 1;;
esac
