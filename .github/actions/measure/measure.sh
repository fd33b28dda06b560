#!/usr/bin/env bash
# The steps of the action: `measure.sh install` installs the suite into the job's Python, `measure.sh measure` runs it in
# the current folder, on $MODEL, with $CHECKPOINT and $OPTIONS. Records and the page go to weight-loading/.
set -euo pipefail
suite=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)

# xargs splits a line into words as a shell does, and runs nothing that is in it.
case "${1-}" in
install)
    printf '%s' "${PACKAGES-}" | xargs python3 -m pip install --quiet "${suite}[report]"
    ;;
measure)
    [ -n "${MODEL-}" ] || { echo "model is empty: name a folder, or file.py:function" >&2; exit 2; }
    printf '%s' "${OPTIONS-}" |
        xargs weight-loading-bench --benchmark-compare --model "$MODEL" ${CHECKPOINT:+--checkpoint "$CHECKPOINT"}
    ;;
*)
    echo "usage: measure.sh install | measure" >&2
    exit 2
    ;;
esac
