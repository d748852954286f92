#!/usr/bin/env bash
# The full fault test: 500 memories, the server killed with -9 20 times, the real Session-Buddy 5 times. Some minutes.
# Another size: MAHAVISHNU_FAULT_MEMORIES, MAHAVISHNU_FAULT_KILLS, MAHAVISHNU_FAULT_PEER_KILLS; the same moments again:
# MAHAVISHNU_FAULT_SEED.
set -euo pipefail
cd "$(dirname "$0")/.."

export MAHAVISHNU_REQUIRE_SESSION_BUDDY=1
export MAHAVISHNU_FAULT_MEMORIES=${MAHAVISHNU_FAULT_MEMORIES:-500}
export MAHAVISHNU_FAULT_KILLS=${MAHAVISHNU_FAULT_KILLS:-20}
export MAHAVISHNU_FAULT_PEER_KILLS=${MAHAVISHNU_FAULT_PEER_KILLS:-5}
exec cargo test --test it session_buddy::kills </dev/null
