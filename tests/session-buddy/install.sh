#!/usr/bin/env bash
# Make a virtual environment with the real Session-Buddy 0.23.0.
#   install.sh [DIR]      default DIR: $MAHAVISHNU_SESSION_BUDDY_VENV, else
#                         ${XDG_CACHE_HOME:-~/.cache}/mahavishnu/session-buddy-0.23.0
# Needs Python >= 3.13, about 1.3 GB of disk and, the first time, the package
# index. Does nothing when DIR is already complete. The last line of stdout is
# the path of the virtual environment; everything else goes to stderr.
# $PYTHON overrides the search for an interpreter.
set -euo pipefail

version=0.23.0
# The behaviour the client is built for was observed with these too.
pins=("session-buddy==$version" "fastmcp==3.4.10" "mcp==1.30.0" "duckdb==2.0.0")

dir=${1:-${MAHAVISHNU_SESSION_BUDDY_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/mahavishnu/session-buddy-$version}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
stamp=$dir/.installed-$version

say() { printf '%s\n' "$*" >&2; }

if [[ -f $stamp && -x $dir/bin/python && -x $dir/bin/session-buddy ]]; then
  say "session-buddy $version is already installed"
  printf '%s\n' "$dir"
  exit 0
fi

new_enough() {
  [[ -n $1 ]] && command -v "$1" >/dev/null 2>&1 &&
    "$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 13))' >/dev/null 2>&1
}

python=
candidates=("${PYTHON:-}" python3.13 python3.14)
shopt -s nullglob
candidates+=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python)
candidates+=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.14*/bin/python)
candidates+=(python3 python)
shopt -u nullglob
for c in "${candidates[@]}"; do
  if new_enough "$c"; then
    python=$c
    break
  fi
done
if [[ -z $python ]]; then
  say "install.sh: no Python >= 3.13 found (looked for \$PYTHON, python3.13, python3.14,"
  say "  \${PYENV_ROOT:-~/.pyenv}/versions/3.13*, python3). Session-Buddy $version needs it."
  exit 1
fi

# One installer at a time per directory.
exec 9>"$dir/.install.lock"
if command -v flock >/dev/null 2>&1; then
  flock 9
fi
if [[ -f $stamp ]]; then
  printf '%s\n' "$dir"
  exit 0
fi

say "using $("$python" --version 2>&1); installing into $dir (some minutes the first time)"
if [[ ! -x $dir/bin/python ]] || ! new_enough "$dir/bin/python"; then
  "$python" -m venv --clear "$dir" >&2
fi
PIP_DISABLE_PIP_VERSION_CHECK=1 "$dir/bin/python" -m pip install --quiet --no-input "${pins[@]}" >&2
"$dir/bin/python" - "$version" >&2 <<'PY'
import sys
from importlib.metadata import version
got = version("session-buddy")
assert got == sys.argv[1], got
print("installed session-buddy", got)
PY
: >"$stamp"
printf '%s\n' "$dir"
