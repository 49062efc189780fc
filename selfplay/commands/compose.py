"""Configuration made into objects, shared by the commands."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from selfplay.agent.loop import OnTurn
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.commands.output import say
from selfplay.config import (
    InjectConfig,
    PolicyConfig,
    ReposConfig,
    SandboxConfig,
    ScaffoldConfig,
    TrainConfig,
)
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.agentic import AgenticScaffold
from selfplay.curriculum.compact import CompactScaffold
from selfplay.curriculum.feedback import FeedbackScaffold
from selfplay.curriculum.scaffold import RepoContext, RolloutContext, Sampling, Scaffold
from selfplay.curriculum.targets import RepoTargets, TaskSampler
from selfplay.errors import UserError
from selfplay.learning import Learner
from selfplay.placement import num_cores
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.spec import find_repos_dir, load_spec
from selfplay.run_dir import RunDir
from selfplay.sampling import Policy
from selfplay.sandbox.base import Sandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.processes import Processes
from selfplay.sandbox.select import open_sandbox

if TYPE_CHECKING:
    from selfplay.learner.ranks.distributed import World
    from selfplay.sandbox.ray.sandbox import RaySandbox

log = logging.getLogger(__name__)

SCAFFOLDS: Mapping[str, type[Scaffold]] = {
    "compact": CompactScaffold,
    "feedback": FeedbackScaffold,
    "agentic": AgenticScaffold,
}
MANY_WORKERS = 8
"""From here on one interpreter is what workers wait for (docs/sandboxes.md)."""
ENGINES = ("transformers", "vllm", "openai", "scripted")


@contextmanager
def sandbox_pool(config: SandboxConfig) -> Iterator[SandboxPool]:
    """Open the configured sandbox; closed, with all it holds, at the end."""
    sandbox: Sandbox
    grows: Callable[[], int] | None = None
    if config.cluster.name == "ray":
        sandbox = cluster = ray_sandbox(config)
        workers = config.num_workers or cluster.num_slots
        judges = num_judges(config, config.num_workers or cluster.num_expected)
        if not config.num_workers:
            grows = lambda: cluster.num_slots  # noqa: E731
    else:
        workers = config.num_workers or num_cores()
        judges = num_judges(config, workers)
        sandbox = open_sandbox(config.name, config)
    pool = SandboxPool(sandbox, workers, Processes(judges) if judges else None, grows)
    try:
        yield pool
    finally:
        pool.close()


def num_judges(config: SandboxConfig, num_workers: int) -> int:
    """Processes that judge beside the run's own, for so many workers."""
    if config.num_judges is not None:
        return config.num_judges
    return num_workers if num_workers >= MANY_WORKERS else 0


def ray_sandbox(config: SandboxConfig) -> RaySandbox:
    """The sandboxes of a Ray cluster as one."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("cluster=ray: the package is missing: pip install 'selfplay[ray]'")
    from selfplay.sandbox.ray.sandbox import open_ray

    sandbox = open_ray(config)
    say(sandbox.describe())
    return sandbox


def repos_dir(config: ReposConfig) -> Path:
    """The directory of repository specifications."""
    return Path(config.directory) if config.directory else find_repos_dir()


def prepare_repos(
    names: Sequence[str], config: ReposConfig, pool: SandboxPool
) -> dict[str, PreparedRepo]:
    """Prepare (or take from the cache) every named repository."""
    if not names:
        raise UserError("repos.train is empty; name repositories, e.g. repos.train=[toolz]")
    specs = {name: load_spec(name, repos_dir(config)) for name in names}
    for name, spec in specs.items():
        other = next(n for n, s in specs.items() if s.name == spec.name)
        if specs[other] != spec:
            raise UserError(f"{other} and {name} are both called {spec.name}: rename one's folder")
    prepared = {}
    for name, spec in specs.items():
        say(f"preparing {name}")
        prepared[spec.name] = prepare(spec, pool.sandbox)
    return prepared


def keep_originals(repo_contexts: Iterable[RepoContext], corpus: Corpus) -> None:
    """Runs of the original code are kept in the corpus; who resumes need not repeat them."""
    for repo_context in repo_contexts:
        repo_context.runner.originals = corpus.run_cache


def make_repo_context(prepared: PreparedRepo, pool: SandboxPool) -> RepoContext:
    """A repository with its runner."""
    runner = TestRunner(pool.sandbox, prepared.environment)
    return RepoContext(prepared=prepared, runner=runner, processes=pool.processes)


def make_rollout_context(
    policy: Policy,
    repos: Mapping[str, PreparedRepo],
    pool: SandboxPool,
    config: ScaffoldConfig,
    sampling: Sampling,
    on_turn: OnTurn | None = None,
) -> RolloutContext:
    """Policy, scaffold, repositories and pool in one; `on_turn` sees the turns of episodes that
    have several."""
    repo_contexts = {name: make_repo_context(prepared, pool) for name, prepared in repos.items()}
    return RolloutContext(
        policy=policy,
        scaffold=scaffold_class(config).open(config, policy, repo_contexts, on_turn),
        repo_contexts=repo_contexts,
        pool=pool,
        sampling=sampling,
        public_share=config.public_share,
    )


def make_task_sampler(
    config: TrainConfig | InjectConfig, context: RolloutContext, names: Iterable[str] | None = None
) -> TaskSampler:
    """What draws the injector's tasks; `names`: only in these repositories."""
    contexts = context.repo_contexts
    return TaskSampler(
        {
            name: RepoTargets(contexts[name].prepared, config.scaffold)
            for name in (contexts if names is None else names)
        },
        context.scaffold,
        curriculum=config.curriculum,
        injector=config.injector,
        seed=config.seed,
    )


def scaffold_class(config: ScaffoldConfig) -> type[Scaffold]:
    """The configured scaffold. Raises `UserError` for an unknown one."""
    found = SCAFFOLDS.get(config.kind)
    if found is None:
        raise UserError(f"scaffold.kind={config.kind!r}: must be one of {', '.join(SCAFFOLDS)}")
    return found


def open_policy(config: PolicyConfig, scaffold: ScaffoldConfig | None = None) -> Policy:
    """A policy for inference alone (`inject`, `evaluate`); scripted ones know one scaffold each."""
    roles = scaffold_class(scaffold or ScaffoldConfig())
    if config.engine == "scripted":
        return roles.scripted()
    if config.engine == "openai":
        from selfplay.policy.openai import open_openai

        return open_openai(config)
    if config.engine == "vllm":
        from selfplay.learner.vllm_learner import open_for_inference

        return open_for_inference(config)
    if config.engine != "transformers":
        raise UserError(f"policy.engine={config.engine!r} is unknown; one of: {', '.join(ENGINES)}")
    from selfplay.learner.grpo import load_for_inference

    return load_for_inference(config)


def usage_of(policy: Policy) -> dict[str, float | None] | None:
    """Tokens and cost, of a policy whose server counts them."""
    from selfplay.policy.openai import OpenAIPolicy

    return policy.usage() if isinstance(policy, OpenAIPolicy) else None


def open_trained(config: TrainConfig, run_dir: RunDir, world: World | None = None) -> Learner:
    """The learner with the policy that it trains, on rank 0 of `world` (None: one process)."""
    engine = config.policy.engine
    if engine in ("scripted", "openai"):
        raise UserError(f"policy={engine} has no weights to train; add learner=none")
    longest = scaffold_class(config.scaffold).longest(config.scaffold, config.policy)
    policy, learner, seed = config.policy, config.learner, config.seed
    worlds = () if world is None else (world,)
    if engine == "vllm":
        from selfplay.learner.vllm_learner import open_served_learner

        root = run_dir.path / "weights" / "served"
        scores = config.curriculum.max_fresh_groups is not None
        return open_served_learner(
            policy, learner, seed, root, *worlds, longest=longest, scores=scores
        )
    from selfplay.learner.grpo import open_learner

    return open_learner(policy, learner, seed, *worlds, longest=longest)
