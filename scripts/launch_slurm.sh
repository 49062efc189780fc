#!/usr/bin/env bash
#SBATCH --job-name=selfplay
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
# A Slurm job: a Ray cluster over its nodes, the run on the first one, sandboxes on the others.
#   sbatch --nodes=8 scripts/launch_slurm.sh experiment=... name=RUN policy.vllm.urls=[http://...]
# Run it from the checkout, which all nodes see; so must SELFPLAY_CACHE. A job that is requeued goes
# on with its run. With one node no cluster is made. DRY=1 prints the commands and starts nothing.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$PWD}"
export SELFPLAY_CACHE=${SELFPLAY_CACHE:-$PWD/.cache}
do_it() { if [ -n "${DRY:-}" ]; then printf '%s\n' "$(printf '%q ' "$@")"; else "$@"; fi; }
if [ "${SLURM_NNODES:-1}" -le 1 ]; then
    do_it bash scripts/launch_local.sh "$@"
    exit
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} port=${PORT:-$((20000 + SLURM_JOB_ID % 20000))}  # two jobs may share a node
on() { local node=$1; shift; do_it srun --nodes=1 --ntasks=1 --overlap -w "$node" "$@"; }
export PORT=$port
# `--block` keeps the node's Ray in the step: Slurm ends it, and all it started, with the job.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
on "$head" .venv/bin/ray start --block --head --port "$port" --include-dashboard=false \
    --disable-usage-stats --num-cpus 0 --resources '{"sandbox_slots": 0}' &
[ -n "${DRY:-}" ] || sleep "${HEAD_S:-20}"
for node in "${nodes[@]:1}"; do
    on "$node" bash -c ".venv/bin/ray start --block --address $head:$port --disable-usage-stats \
        --resources \"{\\\"sandbox_slots\\\": \$(nproc)}\"" &
done
[ -n "${DRY:-}" ] || sleep "${NODES_S:-20}"
on "$head" bash scripts/launch_ray.sh train "sandbox.cluster.address=$head:$port" "$@"
[ -z "${DRY:-}" ] || wait
