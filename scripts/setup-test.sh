#!/bin/sh
# Sees to what the tests need beyond the build: a redis-server, which they start themselves on free ports.
set -eu

if command -v redis-server > /dev/null; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends redis-server
    exit 0
fi
echo 'The tests need redis-server, version 7 or later. Type:' >&2
echo '    sudo apt-get update && sudo apt-get install --no-install-recommends redis-server' >&2
exit 1
