"""What a verdict costs: raw test runs against full consistency validations, sandbox by sandbox.

    python scripts/bench_sandbox.py [--quick] [--repos a,b,c] [--bugs N] [--no-docker]

For every bug, one after the other in one process:

    raw      the test runs of its validation alone, back to back in one sandbox that stays open
    plain    the validation with every run executed in a fresh bubblewrap sandbox, nothing cached
    fast     the validation with all levers: forked interpreter, cached runs (the original's too)
    docker   (every few bugs) the validation with every run in Docker
    naive    (the same bugs) every run in a container made for it, nothing cached or shared

Bugs are procedural and unvalidated before: valid and invalid ones, as an injector would hand them
in. The last line of stdout is one JSON object (docs/formats.md); ratios are medians over bugs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm import tqdm

from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.config import ScaffoldConfig
from selfplay.errors import SelfplayError, UserError
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.spec import find_repos_dir, load_spec
from selfplay.roles.compact.injector import CompactInjector
from selfplay.sandbox.base import Job, Quota, RunResult, Sandbox
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.scratch import deleted_paths
from selfplay.scripted.compact import ScriptedPolicy
from selfplay.types import BugArtifact, Limits, ValidationReport
from selfplay.warmstart.procedural_answers import procedural_answers, procedural_artifact

REPOS = ("cachetools", "toolz", "sqlparse", "tabulate", "boltons")
LIMITS = Limits(script_timeout_s=20.0)
DRIVER = """
import json, os, pathlib, shutil, subprocess, time
seconds = []
for run in json.load(open("/in/runs.json")):
    saved = {}
    for path, text in run["layer"].items():
        file = pathlib.Path(path)
        saved[path] = file.read_bytes() if file.is_file() else None
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode("utf-8", "surrogateescape"))
    pathlib.Path("/tmp/script.sh").write_text(run["script"])
    began = time.perf_counter()
    try:
        subprocess.run(["bash", "/tmp/script.sh"], stdout=subprocess.PIPE, timeout=run["timeout_s"],
                       stderr=subprocess.STDOUT, env={**os.environ, **run["variables"]})
    except subprocess.TimeoutExpired:
        pass
    seconds.append(time.perf_counter() - began)
    for path, content in saved.items():
        file = pathlib.Path(path)
        file.unlink(missing_ok=True) if content is None else file.write_bytes(content)
print(json.dumps(seconds))
"""


class Recorder:
    """Passes jobs on and remembers those that run a test script."""

    name = "recorder"

    def __init__(self, inner: Sandbox) -> None:
        self.inner, self.jobs = inner, list[Job]()

    def run(self, job: Job) -> RunResult:
        self.jobs.append(job)
        return self.inner.run(job)

    def close(self) -> None:
        self.inner.close()


class Unprepared:
    """Docker without containers that wait: no two jobs can share one."""

    name = "unprepared"

    def __init__(self, inner: Sandbox) -> None:
        self.inner, self.numbers = inner, itertools.count(1)

    def run(self, job: Job) -> RunResult:
        memory = job.quota.memory + 4096 * next(self.numbers)
        return self.inner.run(replace(job, quota=replace(job.quota, memory=memory)))

    def close(self) -> None:
        self.inner.close()


@dataclass
class TimedBug:
    """One bug and what it cost, in seconds."""

    repo: str
    artifact: BugArtifact
    seconds: dict[str, float] = field(default_factory=dict)
    num_runs: int = 0
    agrees: bool = True
    valid: bool = False


def raw_seconds(jobs: list[Job], sandbox: Sandbox) -> float:
    """The runs of these jobs alone, inside one sandbox."""
    runs = [
        {
            "layer": {
                path: None if c.content is None else c.content.decode("utf-8", "surrogateescape")
                for path, c in job.layer.items()
            }
            | dict.fromkeys(deleted_paths(job.layer)),
            "script": job.inputs["test_script.sh"].decode("utf-8", "surrogateescape"),
            "variables": dict(job.variables),
            "timeout_s": job.quota.timeout_s,
        }
        for job in jobs
    ]
    result = sandbox.run(
        Job(
            environment=jobs[0].environment,
            argv=("python", "-c", DRIVER),
            inputs={"runs.json": json.dumps(runs).encode()},
            quota=Quota(timeout_s=600.0),
        )
    )
    if result.exit_code != 0:
        raise SystemExit(f"the raw runs failed: {result.output[-500:].decode(errors='replace')}")
    return float(sum(json.loads(result.output.decode().splitlines()[-1])))


def timed(bug: TimedBug, kind: str, runner: TestRunner) -> ValidationReport:
    """One validation, its wall time noted under `kind`."""
    began = time.perf_counter()
    report = validate(bug.artifact, runner.environment, runner, LIMITS)
    bug.seconds[kind] = time.perf_counter() - began
    if report.verdict == "undecided":
        raise SystemExit(f"{kind}: a sandbox failed: {report.checks}")
    return report


def answer(report: ValidationReport) -> tuple[Any, ...]:
    """What two validations of one artifact must agree on."""
    return report.verdict, report.reason, report.fail_to_pass, report.pass_to_pass, report.flaky


def make_bugs(injector: CompactInjector, number: int, bar: tqdm[Any]) -> Iterator[TimedBug]:
    """Procedural bugs of one repository that at least one test notices."""
    for found in itertools.islice(procedural_answers(injector, seed=11), 40 * number):
        artifact = procedural_artifact(injector, found)
        if artifact is not None:
            bar.update(1)
            yield TimedBug(repo=injector.prepared.name, artifact=artifact)
            number -= 1
            if number == 0:
                return


def measure(bug: TimedBug, prepared: PreparedRepo, plain: Sandbox, fast: TestRunner) -> None:
    """raw, plain and fast for one bug."""
    recorder = Recorder(plain)
    reference = timed(bug, "plain", TestRunner(recorder, prepared.environment))
    bug.seconds["raw"] = raw_seconds(recorder.jobs, plain)
    report = timed(bug, "fast", fast)
    bug.num_runs, bug.valid = len(recorder.jobs), reference.verdict == "valid"
    bug.agrees = answer(report) == answer(reference)
    if not bug.agrees:
        tqdm.write(
            f"{bug.repo}: plain {answer(reference)}\nfast {answer(report)}\n"
            f"{bug.artifact.bug_patch}",
            file=sys.stderr,
        )


def measure_docker(bugs: list[TimedBug], repos: dict[str, PreparedRepo], stack: ExitStack) -> None:
    """docker and naive for some bugs."""
    from selfplay.sandbox.docker.sandbox import DockerSandbox

    kinds: dict[str, Sandbox] = {"docker": DockerSandbox(), "naive": Unprepared(DockerSandbox())}
    for sandbox in kinds.values():
        stack.enter_context(closing(sandbox))
    for bug in tqdm(bugs, desc="in Docker", unit="bug"):
        for kind, sandbox in kinds.items():
            timed(bug, kind, TestRunner(sandbox, repos[bug.repo].environment))


def snapshot_ms(sandbox: Sandbox, prepared: PreparedRepo) -> float:
    """Median of a fresh snapshot and `true`."""
    seconds = []
    for _ in range(25):
        began = time.perf_counter()
        sandbox.run(Job(environment=prepared.environment, argv=("true",)))
        seconds.append(time.perf_counter() - began)
        time.sleep(0.02)
    return round(1000 * statistics.median(seconds), 1)


def validate_all(
    bugs: list[TimedBug], repos: dict[str, PreparedRepo], sandbox: Sandbox, workers: int
) -> float:
    """Seconds for all of them with all levers and so many workers."""
    runners = {name: TestRunner(sandbox, r.environment) for name, r in repos.items()}
    pool = SandboxPool(sandbox, workers)

    def one(bug: TimedBug) -> None:
        validate(bug.artifact, repos[bug.repo].environment, runners[bug.repo], LIMITS)

    began = time.perf_counter()
    pool.map(one, bugs)
    return time.perf_counter() - began


def median_ratio(bugs: list[TimedBug], above: str, below: str) -> float | None:
    """Median over bugs of one kind's seconds over another's."""
    ratios = [s.seconds[above] / s.seconds[below] for s in bugs if above in s.seconds]
    return round(statistics.median(ratios), 3) if ratios else None


def total(bugs: list[TimedBug], kind: str) -> float:
    return sum(bug.seconds[kind] for bug in bugs)


def table(bugs: list[TimedBug], say: Callable[[str], None]) -> None:
    """Sums by repository, for people."""
    kinds = ["raw", "plain", "fast", "docker", "naive"]
    say(f"{'':14}{'bugs':>6}{'valid':>7}{'runs':>6}" + "".join(f"{k:>9}" for k in kinds))
    for repo in dict.fromkeys(s.repo for s in bugs):
        mine = [s for s in bugs if s.repo == repo]
        cells = []
        for kind in kinds:
            seconds = [s.seconds[kind] for s in mine if kind in s.seconds]
            cells.append(f"{statistics.mean(seconds):>8.2f}s" if seconds else f"{'-':>9}")
        runs = statistics.mean(s.num_runs for s in mine)
        say(f"{repo:14}{len(mine):>6}{sum(s.valid for s in mine):>7}{runs:>6.1f}" + "".join(cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="three repositories, few bugs")
    parser.add_argument("--repos", default="")
    parser.add_argument("--bugs", type=int, default=0, help="bugs of each repository")
    parser.add_argument("--no-docker", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    names = options.repos.split(",") if options.repos else REPOS[: 3 if options.quick else 5]
    number = options.bugs or (8 if options.quick else 45)

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")

    with ExitStack() as stack:
        plain = stack.enter_context(closing(BubblewrapSandbox()))
        forking = stack.enter_context(closing(BubblewrapSandbox(preload=True)))
        pool = SandboxPool(forking, 1)
        repos = {n: prepare(load_spec(n, find_repos_dir()), plain) for n in names}
        tokenizer = ScriptedPolicy().tokenizer
        bugs: list[TimedBug] = []
        with tqdm(total=number * len(names), unit="bug", desc="validating") as bar:
            for prepared in repos.values():
                runner = TestRunner(forking, prepared.environment)
                looked = TestRunner(pool.sandbox, prepared.environment)
                injector = CompactInjector(prepared, tokenizer, looked, ScaffoldConfig())
                for bug in make_bugs(injector, number, bar):
                    measure(bug, prepared, plain, runner)
                    bugs.append(bug)
        first = repos[names[0]]
        snapshots = {"bubblewrap": snapshot_ms(plain, first)}
        if not options.no_docker:
            measure_docker(bugs[:: 3 if options.quick else 8], repos, stack)
            from selfplay.sandbox.docker.sandbox import DockerSandbox

            snapshots["docker"] = snapshot_ms(stack.enter_context(closing(DockerSandbox())), first)
        one, two = (validate_all(bugs, repos, forking, workers) for workers in (1, 2))
        table(bugs, say)
        dockered = [s for s in bugs if "naive" in s.seconds]
        document = {
            "overhead_ratio": {
                "docker": median_ratio(bugs, "docker", "raw"),
                "bubblewrap": median_ratio(bugs, "plain", "raw"),
            },
            "fast_ratio": median_ratio(bugs, "fast", "raw"),
            "naive_ratio": round(total(dockered, "naive") / total(dockered, "fast"), 2)
            if dockered
            else None,
            "bugs_per_minute": round(60 * len(bugs) / one, 1),
            "snapshot_ms": snapshots,
            "parallel_speedup": round(one / two, 2),
            "repos": list(names),
            "bugs": len(bugs),
            "valid": sum(s.valid for s in bugs),
            "disagreements": sum(not s.agrees for s in bugs),
            "fast_total_ratio": round(total(bugs, "fast") / total(bugs, "raw"), 3),
        }
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SelfplayError as error:
        sys.stderr.write(f"bench_sandbox: {error}\n")
        sys.exit(2 if isinstance(error, UserError) else 3)
