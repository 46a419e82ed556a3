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
  {
    rm -rf "$cache/redfish"
    python3 -m venv "$cache/redfish"
    "$python" -m pip install --quiet --disable-pip-version-check sushy-tools==2.2.0 bcrypt
  } >&2
fi
echo "$python"
