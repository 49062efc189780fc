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
step() { words=(srun --nodes=1 --ntasks=1 --overlap -w "$1" "${@:2}"); }
begin() { if [ -n "${DRY:-}" ]; then do_it "${words[@]}"; else "${words[@]}" & fi; }
answers() { [ -n "${DRY:-}" ] || (exec 3<>"/dev/tcp/$head/$port") 2>/dev/null; }
# `--block` keeps the node's Ray in the step: Slurm ends it, and all it started, with the job.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
step "$head" .venv/bin/ray start --block --head --port "$port" --include-dashboard=false \
    --disable-usage-stats --num-cpus 0 --resources '{"sandbox_slots": 0}'
begin
for ((tried = 0; tried < ${HEAD_S:-300}; tried++)); do answers && break || sleep 1; done
answers || { echo "launch_slurm: no Ray at $head:$port after ${HEAD_S:-300} s" >&2; exit 1; }
for node in "${nodes[@]:1}"; do  # the run begins with the first that is up; the others join it
    step "$node" bash -c "exec .venv/bin/ray start --block --address $head:$port \
        --disable-usage-stats --resources \"{\\\"sandbox_slots\\\": \$(nproc)}\""
    begin
done
step "$head" bash scripts/launch_ray.sh train "sandbox.cluster.address=$head:$port" "$@"
do_it "${words[@]}"
