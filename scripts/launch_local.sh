#!/usr/bin/env bash
# A run on this machine; on several GPUs, one learner process for each of LEARNERS.
#   LEARNERS=4 bash scripts/launch_local.sh experiment=one_node name=RUN
# A learner of several machines: the same on each, with LEARNER_NODES (how many), NODE_RANK (0 plays
# the run), and HEAD and LEARNER_PORT, where rank 0 is reached. DRY=1 prints the command alone.
set -euo pipefail
python=${PYTHON:-.venv/bin/python}
launched=()
if [ "${LEARNERS:-1}" -gt 1 ] || [ "${LEARNER_NODES:-1}" -gt 1 ]; then
    launched=(-m torch.distributed.run --nproc-per-node "${LEARNERS:-1}")
fi
if [ "${LEARNER_NODES:-1}" -gt 1 ]; then
    launched+=(--nnodes "$LEARNER_NODES" --node-rank "${NODE_RANK:?0 to LEARNER_NODES - 1}"
        --master-addr "${HEAD:?machine of rank 0}" --master-port "${LEARNER_PORT:-29500}")
fi
command=("$python" ${launched[@]+"${launched[@]}"} -m selfplay train "$@")
if [ -n "${DRY:-}" ]; then printf '%q ' "${command[@]}"; echo; exit; fi
exec "${command[@]}"
