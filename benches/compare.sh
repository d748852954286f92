#!/usr/bin/env bash
# Measures what users feel beside its floors and peers, and writes benches/RESULTS.md and the README's table; works from a
# fresh clone.
#
# `benches/compare.sh [PART-OF-A-TITLE]`: all figures, or those whose title contains the text. What was measured stays in
# target/bench.jsonl; a figure that is measured again replaces its row. MAHAVISHNU_BEFORE=PROGRAM measures a second build
# in the same run. What is missing (GNU parallel, taskset, Python) is skipped with a line that names it.
set -euo pipefail
cd "$(dirname "$0")/.."

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

# One build for all: the benchmark, the program it starts, and the bare server.
cargo build --release --locked --bench compare --bin mahavishnu --example bare_server
export MAHAVISHNU_BENCH_MACHINE="Measured on $(cpu), $(getconf _NPROCESSORS_ONLN) cores, $(uname -sr), $(rustc --version), load \
$(load) at the start, $(date -u +%F). In each row all programs took turns in one run; only ratios compare with another machine."
cargo bench --bench compare -- "$@"
