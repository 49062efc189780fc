#!/usr/bin/env bash
# A Ray cluster for sandboxes; the run starts where the head is. Needs on every node: this package
# with the extra `ray` in the same place, and SELFPLAY_CACHE on a file system that all share.
#   bash scripts/launch_ray.sh head [SLOTS]             # first machine; SLOTS sandboxes on it (0)
#   bash scripts/launch_ray.sh node HEAD:6379 [SLOTS]   # each other one; its cores
#   bash scripts/launch_ray.sh train experiment=... name=RUN    # LEARNERS: see launch_local.sh
#   bash scripts/launch_ray.sh stop                     # ends every Ray of this user on this machine
# DRY=1 prints the command and starts nothing; BLOCK=1 stays until the Ray of this node ends.
set -euo pipefail
bin=$(dirname "${PYTHON:-.venv/bin/python}")
store=${OBJECT_STORE:-500000000}  # bytes; results of jobs pass through it, nothing else
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/ray-$UID}  # /tmp/ray belongs to the first user of a machine
common=(--disable-usage-stats --object-store-memory "$store")
if [ -n "${BLOCK:-}" ]; then common+=(--block); fi
slots() { printf '{"sandbox_slots": %d}' "$1"; }
what=${1:-}
shift || true
case $what in
head)  # no CPUs: until a first node names slots, each CPU of a node would be one
    command=("$bin/ray" start --head --port "${PORT:-6379}" --include-dashboard=false
        --num-cpus 0 "${common[@]}" --resources "$(slots "${1:-0}")")
    ;;
node)
    command=("$bin/ray" start --address "${1:?HEAD:PORT}" "${common[@]}"
        --resources "$(slots "${2:-$(nproc)}")")
    ;;
train) exec bash "$(dirname "$0")/launch_local.sh" cluster=ray "$@" ;;
stop) command=("$bin/ray" stop) ;;
*) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
if [ -n "${DRY:-}" ]; then printf '%q ' "${command[@]}"; echo; exit; fi
mkdir -p "$RAY_TMPDIR"
unset RAY_ADDRESS  # where this node belongs is said above
runs() { pgrep -u "$UID" -f '/ray/core/src/ray/(gcs/gcs_server|raylet/raylet) ' >/dev/null; }
if [ -n "${BLOCK:-}" ] || [ "$what" = stop ] || ! command -v pgrep >/dev/null || runs; then
    exec "${command[@]}"  # a second try would begin with the end of every Ray of this user
fi
for try in 1 2 3; do  # Ray allows itself 30 s, which are few on a busy machine or a slow disk
    if "${command[@]}"; then exit; fi
    echo "launch_ray: the $what did not start, try $try of 3" >&2
    "$bin/ray" stop >&2 || true
done
exit 1
