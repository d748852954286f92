#!/usr/bin/env bash
# Results come home: twelve repositories, one task, three failures with two causes, one resume with a hint, and the
# changes in the working copies with nothing left lying about. Everything is real: git repositories in a temporary
# folder, a worker program that edits files as it is told, and each step one call of the MCP server.
#
# Needs the Rust toolchain, git, a C compiler and python3 (to shorten the answers); MAHAVISHNU names a program that is
# built already. Leaves nothing behind but the build.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${MAHAVISHNU:-}" ]; then
    echo "Building mahavishnu (the first time takes a few minutes) ..." >&2
    cargo build --release --locked --bin mahavishnu
    MAHAVISHNU=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)/mahavishnu
fi

world=$(mktemp -d "${TMPDIR:-/tmp}/mahavishnu-results-home.XXXXXX")
trap 'rm -rf "$world"' EXIT
mkdir "$world/repos" "$world/home" "$world/bin"

# Nothing of the user's own configuration takes part.
export HOME=$world/home MAHAVISHNU_STATE_DIR=$world/state MAHAVISHNU_CONFIG=$world/config.toml GIT_CONFIG_SYSTEM=/dev/null
unset MAHAVISHNU_ROOTS XDG_CONFIG_HOME XDG_STATE_HOME
git config --global user.name "Results Home"
git config --global user.email results-home@example.com

# The worker: a program that reads its task on stdin and edits the repository it is started in.
cat >"$world/bin/editor" <<'PROGRAM'
#!/bin/sh
task=$(cat)
sed -i.old 's/^port: 80$/port: 8080/' service.yml && rm service.yml.old
case $task in *CHANGELOG*) echo '- The port is 8080.' >>CHANGELOG.md ;; esac
echo "edited $(basename "$(pwd)")"
PROGRAM
chmod +x "$world/bin/editor"
cat >"$MAHAVISHNU_CONFIG" <<TOML
roots = ["$world/repos"]
[[pools]]
name = "editors"
worker = "editor"
max_workers = 4
[workers.editor]
command = ["$world/bin/editor"]
allow = ["sh"]
TOML

names=(auth billing cart catalog email feed gateway inventory orders payments search users)
for name in "${names[@]}"; do
    repo=$world/repos/$name
    git init --quiet --initial-branch=main "$repo"
    printf 'name: %s\nport: 80\n' "$name" >"$repo/service.yml"
    printf '# Changes\n' >"$repo/CHANGELOG.md"
    echo 'grep -q "^port: 8080$" service.yml' >"$repo/check.sh"
    case $name in
        billing | orders) # Two that want the change written down.
            echo 'grep -q 8080 CHANGELOG.md || { echo "CHANGELOG.md does not mention the change" >&2; exit 3; }' >>"$repo/check.sh"
            ;;
        gateway) # One that no hint will mend.
            echo 'echo "port 8080 is taken by the proxy" >&2; exit 4' >>"$repo/check.sh"
            ;;
    esac
    git -C "$repo" add .
    git -C "$repo" commit --quiet --message "Begin $name"
done

shorten='
import json, sys
keep = sys.argv[1].split(",")
answer = json.load(sys.stdin)
answer = {name: answer[name] for name in keep if name in answer}
for row in answer.get("failures", []):
    for name in ("example", "next_step", "retryable"): row.pop(name, None)
if "counts" in answer:
    answer["counts"] = {name: count for name, count in answer["counts"].items() if count}
for name in ("removed", "kept"):
    if isinstance(answer.get(name), list): answer[name] = len(answer[name])
if "items" in answer:
    applied = [row for row in answer["items"] if row.get("applied")]
    answer["items"] = "%d applied" % len(applied)
print(json.dumps(answer))
'
call() { # call KEEP TOOL ARGUMENT...: prints the call and the fields KEEP of its answer
    local keep=$1 answer status=0
    shift
    printf '$ mahavishnu call'
    for argument in "$@"; do
        argument=${argument/${workflow:-no workflow yet}/\$W}
        case $argument in *[\ \*]*) printf " '%s'" "$argument" ;; *) printf ' %s' "$argument" ;; esac
    done
    printf '\n'
    answer=$("$MAHAVISHNU" call "$@") || status=$?
    printf '%s' "$answer" | python3 -c "$shorten" "$keep"
    last=$answer
    [ "$status" -le 1 ] # 1: some work failed, which is an answer like any other
}

cd "$world/repos"
workflow=
call status,counts,failures execute_workflow_parallel --repos '*' --task 'Move the service to port 8080.' --verify 'sh check.sh'
workflow=$(printf '%s' "$last" | python3 -c 'import json, sys; print(json.load(sys.stdin)["workflow_id"])')
call text read_output --workflow-id "$workflow" --item billing
call status,counts,failures resume_workflow --workflow-id "$workflow" --hint 'Note it in CHANGELOG.md too.'
call items apply_changes --workflow-id "$workflow"
call removed,kept clean_worktrees --workflow-id "$workflow" --include-unapplied --dry-run=false

echo '$ git -C billing status --short'
git -C billing status --short
left=$(for name in "${names[@]}"; do git -C "$name" worktree list | tail -n +2; git -C "$name" branch --list 'mahavishnu/*'; done)
moved=$(grep -l '^port: 8080$' ./*/service.yml | wc -l)
echo "moved: $((moved)) of ${#names[@]}; worktrees and branches left: ${left:-none}"
[ "$((moved))" = 11 ] && [ -z "$left" ]
