#!/usr/bin/env bash
# The main job, for real: builds mahavishnu, makes a handful of git repositories in a temporary folder, runs one
# command over all of them through the MCP server, and shows it happening and what came back.
#
# Needs the Rust toolchain, git and a C compiler; MAHAVISHNU names a program that is built already. Leaves nothing behind
# but the build.
set -euo pipefail
cd "$(dirname "$0")/.."

mahavishnu=${MAHAVISHNU:-}
if [ -z "$mahavishnu" ]; then
    echo "Building mahavishnu (the first time takes a few minutes) ..." >&2
    cargo build --release --locked --bin mahavishnu
    mahavishnu=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)/mahavishnu
fi

world=$(mktemp -d "${TMPDIR:-/tmp}/mahavishnu-first-run.XXXXXX")
trap 'rm -rf "$world"' EXIT
mkdir "$world/repos" "$world/home"

# Nothing of the user's own configuration takes part: neither git's nor mahavishnu's.
export HOME=$world/home MAHAVISHNU_STATE_DIR=$world/state GIT_CONFIG_SYSTEM=/dev/null
unset MAHAVISHNU_CONFIG MAHAVISHNU_ROOTS XDG_CONFIG_HOME XDG_STATE_HOME
git config --global user.name "First Run"
git config --global user.email first-run@example.com

names=(orchard harbor meadow quarry lantern)
for name in "${names[@]}"; do
    repo=$world/repos/$name
    git init --quiet --initial-branch=main "$repo"
    printf '# %s\n' "$name" >"$repo/README.md"
    git -C "$repo" add README.md
    git -C "$repo" commit --quiet --message "Begin $name"
    for change in $(seq $((RANDOM % 4))); do
        printf 'Change %s\n' "$change" >>"$repo/README.md"
        git -C "$repo" commit --quiet --all --message "Change $change"
    done
done
# One that cannot do what is asked: a failure is a result like the others.
git init --quiet --initial-branch=main "$world/repos/empty"

cd "$world/repos"
echo "Running 'git log --oneline' over $((${#names[@]} + 1)) repositories, one of them without a commit:" >&2
arguments=(--wait-s 40)
for name in "${names[@]}" empty; do arguments+=(--repos "$name"); done

status=0
"$mahavishnu" call execute_workflow_parallel "${arguments[@]}" -- git log --oneline || status=$?
if [ "$status" -ne 1 ]; then
    echo "The exit status is $status, not 1 (some work failed), yet the empty repository has no log." >&2
    exit 1
fi
echo "As it should be: one of six failed, so the exit status is 1." >&2
echo "The pool that did it:" >&2
"$mahavishnu" call list_pools
