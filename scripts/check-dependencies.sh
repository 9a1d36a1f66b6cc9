#!/bin/bash
# Holds what must not be linked: names the crate and fails when one of them is.
set -euo pipefail

# refuse <why> <crates, as a pattern> <arguments of cargo tree...>
refuse() {
    local why=$1 crates=$2 tree found
    shift 2
    tree=$(cargo tree --locked --edges normal,build --prefix none --format '{p}' "$@")
    found=$(grep -E "^($crates) v" <<< "$tree" | sort -u || true)
    if [ -n "$found" ]; then
        echo "$why:" >&2
        echo "$found" >&2
        exit 1
    fi
}

refuse 'TLS is ring alone: these need cmake or a system library' \
    'aws-lc-sys|aws-lc-rs|openssl-sys|native-tls' --workspace --features weir/otel
refuse 'Spans go by the gRPC client that is there anyway' 'reqwest' --workspace --features weir/otel
refuse 'The gateway talks to listeners and upstreams only, never to a store, a database or a mail server' \
    'redis|deadpool-redis|redb|sqlx.*|rusqlite|tokio-postgres|lettre|liquid|askama|utoipa|weir-(store|listener|control|portal)' \
    -p weir-gateway --features otel
refuse 'core is pure' 'tokio|async-.*|serde|tracing|metrics|getrandom|weir-(proto|store|listener|gateway)' -p weir-core
