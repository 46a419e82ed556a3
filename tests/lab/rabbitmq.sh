#!/bin/bash
# Tries what the kit for RabbitMQ runs in a guest, in a guest with the real program: its commands while RabbitMQ is well, without an
# environment, as somebody else, and after it was killed and restarted. By hand and not at every test run: software emulation takes
# minutes for it. No Holdfast takes part.
#
#   rabbitmq.sh     builds .cache/guest and .cache/rabbitmq first, from what tests/run.sh has built and installed; ends with 0 if all is
#                   as the kit expects. HOLDFAST_LAB_ACCEL=kvm for a machine that can
set -euo pipefail
here=$(dirname "$(readlink -f "$0")") top=$(dirname "$(readlink -f "$0")")/../..
agent=${HOLDFAST_GUEST:-$top/target/debug/holdfast-guest} built=$top/.cache/rabbitmq
[ -x "$agent" ] || { echo "no $agent; build it with: cargo build -p holdfast-probes --bins" >&2; exit 1; }
"$here/guest.sh" "$top/.cache/guest"
"$here/kits.sh" "$top/.cache/guest" "$agent" "$built" rabbitmq
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

# As they stand in the kit: one command in one line, and one for a shell, folded.
kit=$top/examples/kits/rabbitmq.yaml
running=$(sed -n 's/.*exec: { run: \["\(rabbitmq-diagnostics\)", "\(-q\)", "\(check_running\)"\] }.*/\1 \2 \3/p' "$kit")
message=$(awk '/>-$/ { on = 1; next } on && !/^ {16}/ { exit } on { sub(/^ +/, ""); printf "%s ", $0 }' "$kit")
[ -n "$running" ] && [ -n "$message" ] || { echo "the kit does not say what it runs as this script expects" >&2; exit 1; }

mkdir -p "$work/root/etc"
printf %s "$message" > "$work/root/etc/message"
cat > "$work/root/etc/rc.app" <<S
#!/bin/sh
exec > /dev/ttyS0 2>&1
up() { until netstat -tln | grep -q ':5672 '; do sleep 2; done; sleep 20; }
try() { # WHAT CODE COMMAND...
  local what=\$1 wanted=\$2 began code=0; shift 2
  read -r began _ < /proc/uptime; "\$@" || code=\$?; read -r ended _ < /proc/uptime
  [ \$code = \$wanted ] && echo "RESULT ok: \$what ended with \$code after \$(( \${ended%.*} - \${began%.*} )) s" || echo "RESULT wrong: \$what ended with \$code"
}
message() { "\$@" sh -c "\$(cat /etc/message)"; }
bare="env -i PATH=/bin:/sbin:/usr/bin:/usr/sbin"
( /etc/unit.start; up
  for time in first second; do try "running, \$time" 0 $running; try "message, \$time" 0 message; done
  try "running without an environment" 0 \$bare $running
  try "message without an environment" 0 message \$bare
  killall -KILL beam.smp; sleep 1
  try "running when killed" 69 $running
  try "restart" 0 systemctl restart rabbitmq-server
  up; try "running again" 0 $running; try "message again" 0 message
  echo "RESULT end"; poweroff -f ) < /dev/null &
S
chmod +x "$work/root/etc/rc.app"
(cd "$work/root" && find . | cpio -o -H newc --quiet) > "$work/more"
{ cat "$built/rabbitmq.initrd"; head -c $(((4 - $(stat -c %s "$built/rabbitmq.initrd") % 4) % 4)) /dev/zero; cat "$work/more"; } > "$work/initrd"
cp --sparse=always "$built/rabbitmq.raw" "$work/disk.raw"
case ${HOLDFAST_LAB_ACCEL:-tcg} in kvm) accel=kvm;; *) accel=tcg,tb-size=512;; esac
khz=$(awk -F: '/cpu MHz/ { printf "%d", $2 * 1000; exit }' /proc/cpuinfo)
timeout 1800 qemu-system-x86_64 -machine q35 -accel "$accel" -cpu max -m 768M -smp 2 -nodefaults -display none -serial "file:$work/console" \
  -kernel "$top/.cache/guest/vmlinux" -initrd "$work/initrd" -drive "file=$work/disk.raw,format=raw,if=virtio" \
  -append "console=ttyS0 quiet tsc_early_khz=$khz lpj=4000000 lab.name=rabbitmq-1 lab.disk=1" || true
grep -a RESULT "$work/console" || true
if grep -aq 'RESULT wrong' "$work/console" || ! grep -aq 'RESULT end' "$work/console"; then
  tail -40 "$work/console" >&2
  exit 1
fi
