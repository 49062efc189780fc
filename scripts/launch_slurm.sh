#!/usr/bin/env bash
#SBATCH --job-name=selfplay
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
# A Slurm job: a Ray cluster over its nodes, the run on the first one, sandboxes on the others.
#   sbatch --nodes=8 scripts/launch_slurm.sh experiment=... name=RUN policy.vllm.urls=[http://...]
# LEARNER_NODES=2 LEARNERS=8: the learner on the first two, 8 processes each; sandboxes on the rest,
# but for the last VLLM_NODES, which each have a vLLM server of VLLM_MODEL; VLLM_ARGS: words for it,
# such as "--lora-rank 16 -- --tensor-parallel-size 8" (launch_vllm.py).
# Submit it from the checkout, which all nodes see; so must SELFPLAY_CACHE. Near its time limit the
# job requeues itself, and goes on with its run. With one node no cluster is made. DRY=1 prints the
# commands and starts nothing.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$PWD}"
say() { echo "launch_slurm: $*" >&2; }
[ -f scripts/launch_ray.sh ] || { say "submit it from the checkout, not from $PWD"; exit 2; }
export SELFPLAY_CACHE=${SELFPLAY_CACHE:-$PWD/.cache}
export LEARNER_NODES=${LEARNER_NODES:-1} PORT=${PORT:-$((20000 + ${SLURM_JOB_ID:-0} % 20000))}
export LEARNER_PORT=${LEARNER_PORT:-$((PORT + 20000))}  # two jobs may share a node
# Whoever reaches the ports of a Ray without a token runs code as its user.
token=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$token}
export VLLM_NODES=${VLLM_NODES:-0} VLLM_PORT=${VLLM_PORT:-$((LEARNER_PORT + 1))}
export SELFPLAY_VLLM_TOKEN=${SELFPLAY_VLLM_TOKEN:-$token}
requeue() { say "the time limit is near: requeued"; scontrol requeue "$SLURM_JOB_ID"; }
trap requeue USR1
mark=$(mktemp)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$mark"' EXIT

declare -A steps=() begun=()  # process of this shell: its part; node: how often it was begun
begin() {  # PART WORDS...
    if [ -n "${DRY:-}" ]; then printf '%q ' "${@:2}"; echo; return; fi
    "${@:2}" &
    steps[$!]=$1
}
on() { begin "$2" srun --nodes=1 --ntasks=1 --overlap --export=ALL -w "$1" "${@:3}"; }
tried_out() { begun[$1]=$((${begun[$1]:-0} + 1)) && [ "${begun[$1]}" -gt 3 ]; }  # three tries a node
join() {  # Ray allows itself 30 s to start, few where disks are slow
    if tried_out "$1"; then return; fi
    on "$1" "node $1" env BLOCK=1 bash scripts/launch_ray.sh node "$HEAD:$PORT"
}
serve() {  # one that dies is begun again, and given its weights by the run, which goes on without it
    if tried_out "$1"; then return; fi
    # shellcheck disable=SC2086  # VLLM_ARGS are words
    on "$1" "vLLM server on $1" "${PYTHON:-.venv/bin/python}" scripts/launch_vllm.py \
        "$VLLM_MODEL" --host "$1" --port "$VLLM_PORT" ${VLLM_ARGS:-}
}
left() { local part; for part in "${steps[@]}"; do [[ $part != $1* ]] || return 0; done; return 1; }
look() {  # tells and forgets the steps that have ended; ends with the run
    local pid part code
    for pid in "${!steps[@]}"; do
        if kill -0 "$pid" 2>/dev/null; then continue; fi
        code=0 part=${steps[$pid]}
        wait "$pid" || code=$?
        unset "steps[$pid]"
        if [ "$part" = run ]; then exit "$code"; fi
        say "the $part has ended with $code"
        if [[ $part = node* ]]; then join "${part#node }"; fi
        if [[ $part = vLLM* ]]; then serve "${part##* }"; fi
    done
}
if [ "${SLURM_NNODES:-1}" -le 1 ]; then
    begin run bash scripts/launch_local.sh "$@"
    while left run; do sleep 1; look; done
    exit
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export HEAD=${nodes[0]}
if [ "${#nodes[@]}" -le $((LEARNER_NODES + VLLM_NODES)) ]; then
    say "${#nodes[@]} nodes leave none for sandboxes beside LEARNER_NODES=$LEARNER_NODES" \
        "and VLLM_NODES=$VLLM_NODES"
    exit 2
fi
words=() first=$((${#nodes[@]} - VLLM_NODES))
if [ "$VLLM_NODES" -gt 0 ]; then
    : "${VLLM_MODEL:?a name or directory of the model that VLLM_NODES serve}"
    urls=$(printf ",http://%s:$VLLM_PORT" "${nodes[@]:first}")
    words=(policy=vllm "policy.vllm.urls=[${urls:1}]")
    for node in "${nodes[@]:first}"; do serve "$node"; done  # the run waits for them
fi
# BLOCK keeps a node's Ray in its step: Slurm ends it, and all it started, with the job.
begin_head() { on "$HEAD" "head of Ray on $HEAD" env BLOCK=1 bash scripts/launch_ray.sh head; }
answers() { [ -n "${DRY:-}" ] || (exec 3<>"/dev/tcp/$HEAD/$PORT") 2>/dev/null; }
started() {  # the port opens first, and Ray may still give up: when it has not, it writes this file
    local file=${RAY_TMPDIR:-/tmp/ray-$UID}/ray/ray_current_cluster
    [ -n "${DRY:-}" ] || { [ "$file" -nt "$mark" ] && grep -q ":$PORT\$" "$file"; }
}
begin_head
tries=1 answered=0
for ((waited = 0; waited < ${HEAD_S:-300}; waited++)); do
    if answers; then
        if started || [ "$answered" -ge "${START_S:-35}" ]; then break; fi  # it allows itself 30 s
        answered=$((answered + 1))
    fi
    sleep 1
    look
    if ! left head; then
        tries=$((tries + 1)) answered=0
        if [ "$tries" -gt 3 ]; then say "no Ray without its head"; exit 1; fi
        say "the head is begun again"
        begin_head
    fi
done
answers || { say "no Ray at $HEAD:$PORT after ${HEAD_S:-300} s"; exit 1; }
for node in "${nodes[@]:LEARNER_NODES:first-LEARNER_NODES}"; do  # the run begins with the first
    join "$node"
done
for ((rank = 0; rank < LEARNER_NODES; rank++)); do
    part=$([ "$rank" = 0 ] && echo run || echo "learner on ${nodes[rank]}")
    on "${nodes[rank]}" "$part" env "NODE_RANK=$rank" bash scripts/launch_ray.sh train \
        "sandbox.cluster.address=$HEAD:$PORT" ${words[@]+"${words[@]}"} "$@"
done
while left run; do
    sleep 1
    look
    left head || { say "the head of Ray is gone"; exit 1; }
    left node || { say "no node is left for sandboxes"; exit 1; }
done
