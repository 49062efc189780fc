#!/usr/bin/env bash
# A run on this machine; on several GPUs, one learner process for each of LEARNERS.
#   LEARNERS=4 bash scripts/launch_local.sh experiment=one_node name=RUN
# DRY=1 prints the command and starts nothing.
set -euo pipefail
python=${PYTHON:-.venv/bin/python}
if [ "${LEARNERS:-1}" -gt 1 ]; then
    command=("$python" -m torch.distributed.run --nproc-per-node "$LEARNERS" -m selfplay train "$@")
else
    command=("$python" -m selfplay train "$@")
fi
if [ -n "${DRY:-}" ]; then printf '%q ' "${command[@]}"; echo; exit; fi
exec "${command[@]}"
