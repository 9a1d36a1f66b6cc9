#!/bin/sh
# Sees to what the load suite measures Weir beside and with: nginx, a redis-server, and util-linux to pin processes. The
# suite starts them itself on free ports.
set -eu

missing=''
command -v nginx > /dev/null || [ -x /usr/sbin/nginx ] || missing="$missing nginx"
command -v redis-server > /dev/null || missing="$missing redis-server"
command -v taskset > /dev/null && command -v setpriv > /dev/null || missing="$missing util-linux"

if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
    apt-get update -q
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    exit 0
fi
echo 'Without these, their figures are missing from the table. Type:' >&2
echo "    sudo apt-get update && sudo apt-get install --no-install-recommends$missing" >&2
