#!/bin/sh
# Sees to programs that the build does not make: scripts/install.sh "<who needs them>" program[:package]...
# Installs what is missing through apt where it runs as root; else says what to type, and fails.
set -eu

# Where Debian puts servers is not on everybody's path.
PATH="$PATH:/usr/sbin:/usr/local/sbin"
who=$1
shift
missing=''
for wanted in "$@"; do
    command -v "${wanted%%:*}" > /dev/null || missing="$missing ${wanted##*:}"
done
if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
    apt-get update -q
    # Where an init system runs, servers start on their own ports; nothing here uses those.
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    exit 0
fi
echo "$who$missing. Type:" >&2
echo "    sudo apt-get update && sudo apt-get install --no-install-recommends$missing" >&2
exit 1
