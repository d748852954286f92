#!/usr/bin/env bash
# Runs every benchmark beside its floors and peers and writes the table into the README; works from a fresh clone.
#
# `benches/compare.sh [BENCH...]`: these benchmarks, or all. What was measured stays in target/bench.jsonl; a figure that is
# measured again replaces its row. What is missing (GNU parallel, taskset, Python) is skipped loudly.
set -euo pipefail
cd "$(dirname "$0")/.."

benches=("$@")
[ $# -gt 0 ] || benches=(router cache spawn roundtrip workflows fanout footprint store search)

# A server in Python to compare with, in a folder of its own. Any python3 that can make one will do.
fastmcp() {
    local venv="${XDG_CACHE_HOME:-$HOME/.cache}/mahavishnu/fastmcp-3"
    if ! "$venv/bin/python" -c 'import fastmcp' 2>/dev/null; then
        rm -rf "$venv"
        { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet 'fastmcp>=3,<4'; } >&2 || return 1
    fi
    printf '%s\n' "$venv/bin/python"
}
if python=$(fastmcp); then
    export FASTMCP_PYTHON=$python
else
    echo "SKIPPED FastMCP: it could not be installed (needs python3 with venv, and the network)" >&2
fi

cpu() {
    if [ -r /proc/cpuinfo ]; then
        sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1
    else
        sysctl -n machdep.cpu.brand_string
    fi
}
load() { uptime | sed 's/.*load average[s]*: *//'; }

# One build for all: the benchmarks, the program they start, and the bare server.
cargo build --release --benches --bin mahavishnu --example bare_server --example bench_table
before=$(load)
for bench in "${benches[@]}"; do
    cargo bench --bench "$bench"
done

machine="Measured on $(cpu), $(getconf _NPROCESSORS_ONLN) cores, $(uname -sr), $(rustc --version), load $before before and \
$(load) after, $(date -u +%F). Each row is one run in which all subjects took turns; only ratios compare with another machine or \
another hour. A ratio in bold misses its goal. \`benches/compare.sh\` measures all of it again."
target=${CARGO_TARGET_DIR:-target}
"$target/release/examples/bench_table" "$target/bench.jsonl" README.md "$machine"
