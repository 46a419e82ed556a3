#!/bin/bash
# Prints the interpreter that has sushy-tools, the Redfish emulator of the tests; installs it into .cache when it is not there.
set -euo pipefail
cache=$(dirname "$(readlink -f "$0")")/../../.cache
mkdir -p "$cache"
cache=$(readlink -f "$cache")
python=$cache/redfish/bin/python
# One at a time: several tests start at once.
exec 9> "$cache/redfish.lock"
flock 9
if ! "$python" -c 'import sushy_tools, bcrypt' 2> /dev/null; then
  # An index of packages may be away for a moment. Each try begins anew: one that broke off may have left halves.
  for try in 1 2 3 4; do
    rm -rf "$cache/redfish"
    { python3 -m venv "$cache/redfish" &&
      "$python" -m pip install --quiet --disable-pip-version-check sushy-tools==2.2.0 bcrypt; } >&2 && break
    [ "$try" = 4 ] && exit 1
    echo "redfish: installing sushy-tools failed (try $try of 4), again in 10 s" >&2
    sleep 10
  done
fi
echo "$python"
