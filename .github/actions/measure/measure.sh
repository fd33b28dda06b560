#!/usr/bin/env bash
# The steps of the action: `measure.sh install` installs the suite into the job's Python, `measure.sh measure` runs it in
# the current folder, on $MODEL, with $CHECKPOINT and $OPTIONS. Records and the page go to weight-loading/.
set -euo pipefail
suite=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)

# Splits a line into words as a shell does, and runs nothing that is in it; the words are then in `found`.
split() {
    local lines
    lines=$(python3 -c 'import shlex, sys; print("\n".join(shlex.split(sys.argv[1])))' "$1")
    found=()
    [ -z "$lines" ] || mapfile -t found <<< "$lines"
}

case "${1-}" in
install)
    split "${PACKAGES-}"
    python3 -m pip install --quiet "${suite}[report]" "${found[@]}"
    ;;
measure)
    [ -n "${MODEL-}" ] || { echo "model is empty: name a folder, or file.py:function" >&2; exit 2; }
    split "${OPTIONS-}"
    weight-loading-bench --benchmark-compare --model "$MODEL" ${CHECKPOINT:+--checkpoint "$CHECKPOINT"} "${found[@]}"
    ;;
*)
    echo "usage: measure.sh install | measure" >&2
    exit 2
    ;;
esac
