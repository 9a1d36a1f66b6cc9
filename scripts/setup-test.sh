#!/bin/sh
# Sees to what the tests need beyond the build, all of which they start themselves on free ports: a redis-server, and
# nginx and HAProxy, with which the gateway is compared.
set -eu

# Where Debian puts servers is not on everybody's path.
PATH="$PATH:/usr/sbin:/usr/local/sbin"
missing=''
for program in redis-server nginx haproxy; do
    # Debian's packages have the programs' names.
    command -v "$program" > /dev/null || missing="$missing $program"
done
if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
    apt-get update -q
    # Where an init system runs, the packages start their services on their own ports; the tests use none of those.
    # shellcheck disable=SC2086 # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    exit 0
fi
echo "The tests need$missing; redis-server in version 7 or later. Type:" >&2
echo "    sudo apt-get update && sudo apt-get install --no-install-recommends$missing" >&2
exit 1
