"""The text of the environment package's modules; none of them is run here.

verifiers has had two ways of making environments: until 0.3, `load_environment()` returns a
`SingleTurnEnv`; from 0.4 on, a package exports a taskset and the harness that plays it (0.2 and 0.3
have tasksets, too, of another form; they still play what `load_environment()` returns).
"""

INIT = '''\
"""Bugs to be repaired, as a verifiers environment; written by `selfplay export`.

A rollout is one question (failing tests and the code that they run) and one answer, a short edit.
It is graded in sandboxes of selfplay, as a training run of selfplay grades its own.
"""

from importlib.metadata import version

_have = version("verifiers")
_series = tuple(int(part) for part in _have.split(".")[:2])
if not (0, 1) <= _series < (0, 5):
    raise ImportError(f"selfplay_bugs runs with verifiers 0.1.9 to 0.4, and this is {_have}")
if _series < (0, 4):
    from .single_turn import load_environment

    __all__ = ["load_environment"]
else:
    from .taskset import BugEnv, BugTaskset, OneAnswer

    __all__ = ["BugEnv", "BugTaskset", "OneAnswer"]
'''

EXAM = '''\
"""The bugs of a suite with the sandboxes that judge answers; one of each kind in a process."""

import atexit
import contextlib
import dataclasses
import functools
import threading
from pathlib import Path

SUITE = Path(__file__).with_name("suite.jsonl")
_lock = threading.Lock()


def exam(suite=None, max_prompt_tokens=640, sandbox="auto"):
    """`suite`: another suite file; `sandbox`: auto, bubblewrap or docker."""
    with _lock:
        return _exam(str(suite or SUITE), max_prompt_tokens, sandbox)


@functools.cache
def _exam(suite, max_prompt_tokens, sandbox):
    from selfplay.commands.serve import open_exam
    from selfplay.config import SandboxConfig, ScaffoldConfig

    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    scaffold = dataclasses.replace(ScaffoldConfig(), max_prompt_tokens=max_prompt_tokens)
    return stack.enter_context(
        open_exam(suite, sandbox=SandboxConfig(name=sandbox), scaffold=scaffold)
    )
'''

SINGLE_TURN = '''\
"""The environment of verifiers 0.1 to 0.3."""

import asyncio

import verifiers as vf
from datasets import Dataset

from .exam import exam


def load_environment(suite=None, num_tasks=None, max_prompt_tokens=640, sandbox="auto", **kwargs):
    """The environment. `suite`: another suite file; `sandbox`: auto, bubblewrap or docker."""
    from selfplay.errors import InfrastructureError

    bugs = exam(suite, max_prompt_tokens, sandbox)

    async def resolved(completion, info, state) -> float:
        """1.0 where the answer repairs the bug, else 0.0; a fault of the machine is an error."""
        said = completion[-1] if completion else {}
        text = str((said if isinstance(said, dict) else dict(said)).get("content") or "")
        try:
            verdict = await asyncio.to_thread(bugs.judge_answer, info["bug_id"], text)
        except InfrastructureError as error:
            state["error"] = vf.InfraError(str(error))
            return 0.0
        state["reason"] = verdict.reason
        return verdict.reward

    rows = [
        {"prompt": bugs.messages(name), "answer": "", "info": {"bug_id": name}}
        for name in list(bugs.tasks)[:num_tasks]
    ]
    return vf.SingleTurnEnv(
        dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[resolved]), **kwargs
    )
'''

TASKSET = '''\
"""The environment of verifiers 0.4: a taskset, and a harness that asks its question once."""

import asyncio

import httpx
import verifiers.v1 as vf

from .exam import exam


class BugConfig(vf.TaskConfig):
    """Under --env.taskset.task.*"""

    suite: str | None = None
    """Another suite file than the package's."""
    max_prompt_tokens: int = 640
    sandbox: str = "auto"
    """auto, bubblewrap or docker."""

    def exam(self):
        return exam(self.suite, self.max_prompt_tokens, self.sandbox)


class BugData(vf.TaskData):
    """One bug; `id` is its id in the suite."""


class BugTask(vf.Task[BugData, vf.State, BugConfig]):
    @property
    def key(self) -> str:
        return self.data.id

    @vf.reward
    async def resolved(self, trace: vf.Trace) -> float:
        """1.0 where the answer repairs the bug, else 0.0; a fault of the machine is an error."""
        bugs = await asyncio.to_thread(self.config.exam)
        verdict = await asyncio.to_thread(bugs.judge_answer, self.data.id, trace.last_reply)
        return verdict.reward


class BugTasksetConfig(vf.TasksetConfig):
    task: BugConfig = BugConfig()


class BugTaskset(vf.Taskset[BugTask, BugTasksetConfig]):
    def load(self):
        bugs = self.config.task.exam()
        for name in bugs.tasks:
            told = {message["role"]: message["content"] for message in bugs.messages(name)}
            data = BugData(
                id=name, name=name, prompt=told["user"], system_prompt=told.get("system")
            )
            yield BugTask(data, self.config.task)


class OneAnswer(vf.Harness[vf.HarnessConfig]):
    """One question, one answer, no tools: nothing of the model's runs but in our sandboxes."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data):
        system, user = self.resolve_text_prompt(data)
        messages = [{"role": "system", "content": system}] if system else []
        body = {"model": ctx.model, "messages": [*messages, {"role": "user", "content": user}]}
        key = {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(timeout=None) as client:
            said = await client.post(f"{endpoint}/chat/completions", json=body, headers=key)
        failed = said.is_error
        return vf.ProgramResult(int(failed), "", said.text[-2000:] if failed else "")


class BugEnvConfig(vf.EnvConfig):
    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    """Here, not in a machine elsewhere: nothing of the model's runs in the runtime."""


class BugEnv(vf.Env[BugEnvConfig]):
    async def run(self, task, agents):
        await agents.agent.run(task)
'''
