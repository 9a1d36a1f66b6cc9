#!/bin/bash
# Runs each fuzz target for a bounded time, 60 seconds unless told: scripts/fuzz.sh [seconds per target] [target...]
# What is built, and the inputs found so far, are kept in target/fuzz. Stops at the first input that fails.
set -euo pipefail

cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo 'usage: scripts/fuzz.sh [seconds per target] [target...]' >&2
    exit 2
fi
folder=target/fuzz
host=$(rustc --print host-tuple)
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(cd fuzz/targets && printf '%s\n' *.rs | sed 's/\.rs$//')
fi

# A stable compiler counts what is reached when its parts are told so by hand. A target named on the command line keeps
# these flags away from build scripts.
build() {
    local flags=(
        -Cpasses=sancov-module
        -Cllvm-args=-sanitizer-coverage-level=4
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
        -Cllvm-args=-sanitizer-coverage-pc-table
        -Cllvm-args=-sanitizer-coverage-trace-compares
        --cfg fuzzing
    )
    RUSTFLAGS="${flags[*]}" cargo build --locked --release --manifest-path fuzz/Cargo.toml \
        --target "$host" --target-dir "$folder" --bins
}

# run <target>: a line on what came of it, or what to do about what was found.
run() {
    local target=$1 binary=$folder/$host/release/$1 corpus=$folder/corpus/$1 log=$folder/$1.log status=0
    mkdir -p "$corpus" "$folder/found"
    "$binary" -max_total_time="$seconds" -max_len=2048 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$folder/found/$target-" "$corpus" "fuzz/seeds/$target" > "$log" 2>&1 || status=$?
    local executions coverage result=ok
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\) ft: .*/\1/p' "$log" | tail -n 1)
    [ $status -eq 0 ] || result=FAILED
    printf '%-12s %10s executions  %6s places reached  %s\n' "$target" "${executions:-?}" "${coverage:-?}" "$result"
    if [ $status -ne 0 ]; then
        explain "$binary" "$log"
        exit 1
    fi
}

explain() {
    local binary=$1 log=$2 input
    input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    {
        grep -A 3 "panicked at\|ERROR: libFuzzer" "$log" | head -n 12 || tail -n 5 "$log"
        if [ -n "$input" ]; then
            echo "The input is $input; try it again with:"
            echo "    RUST_BACKTRACE=1 $binary $input"
        fi
        echo "All that was said is in $log."
    } >&2
}

# libFuzzer is C++.
scripts/install.sh "The fuzz targets need" g++
build
for target in "${targets[@]}"; do
    run "$target"
done
