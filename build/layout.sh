#!/usr/bin/env bash
# Writes build/layout.ld: the functions that a start runs, then those that the first search and the first plan run too.
#
# Needs Linux and valgrind. To be run when a start has changed much: after an upgrade of rustc or of a large dependency.
# Crates' hashes are left out of the names, so that the list outlives the next version.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || { echo "valgrind is missing" >&2; exit 1; }
CARGO_PROFILE_RELEASE_STRIP=none cargo build --release --locked --bin mahavishnu --target-dir target/layout
program=$PWD/target/layout/release/mahavishnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git init --quiet "$work/repos/one"
git -C "$work/repos/one" -c user.name=layout -c user.email=layout@localhost commit --quiet --allow-empty --message=one

greeting='{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"layout","version":"1"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}'
call() { # call ID TOOL ARGUMENTS
    printf '{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"%s","arguments":%s}}\n' "$@"
}

# Prints the names of the functions that the server ran until it was idle, without the hashes of their crates.
ran() { # ran CALL...
    local line
    {
        printf '%s\n' "$greeting"
        for line in "$@"; do printf '%s\n' "$line"; done
        sleep 10
    } | env -i PATH="$PATH" HOME="$work" valgrind --tool=callgrind --demangle=no --callgrind-out-file="$work/out" \
        "$program" --root "$work/repos" >/dev/null 2>&1
    # A function's name stands where it is first told of, in a line `fn=(12) NAME` or `cfn=(12) NAME`; the libraries' too.
    sed -nE "s/^c?fn=\([0-9]+\) ([A-Za-z0-9_.\$]+).*/\1/p" "$work/out" | sort -u | comm -12 - "$work/own" |
        sed -E 's/Cs[0-9A-Za-z]+_/Cs*_/g; s/\.llvm\.[0-9]+$/*/' | sort -u
}

nm --defined-only "$program" | cut -d' ' -f3 | sort -u >"$work/own"
ran "$(call 1 list_pools '{}')" >"$work/start"
ran "$(call 1 cross_pool_search '{"query":"x"}')" \
    "$(call 2 execute_workflow_parallel '{"repos":["*"],"command":["git","status"],"dry_run":true}')" >"$work/all"

{
    echo "/* Written by build/layout.sh. */"
    echo "SECTIONS {"
    echo "  .text.start : {"
    # Cold ones are in sections `.text.unlikely.NAME`. What starts the programs cannot be run by valgrind.
    printf '    *(.text*.%s)\n' '*7process8guardian*' $(cat "$work/start") $(comm -13 "$work/start" "$work/all")
    echo "  }"
    echo "} INSERT BEFORE .text;"
} >build/layout.ld
