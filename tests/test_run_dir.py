"""The run directory: layout, lock, resumption, episodes that survive a kill."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay import __version__
from selfplay.errors import UserError
from selfplay.run_dir import SUMMARY_KEYS, RunDir
from selfplay.run_dir.episodes import episode_from_dict, episode_to_dict, read_episodes
from selfplay.run_dir.provenance import code_state
from selfplay.types import Episode, Trajectory, Turn

CONFIG = "seed: 3\nsteps: 4\nlearner:\n  learning_rate: 0.1\n"
SUMMARY = dict.fromkeys(SUMMARY_KEYS, 0.5)


def make_episode(name: str = "step0/solver/b/0", step: int = 0, **changes: object) -> Episode:
    episode = Episode(
        episode_id=name,
        group_id="step0/solver/b",
        role="solver",
        repo="toolz",
        task_id="b",
        bug_id="b",
        status="completed",
        reward=1.0,
        reason="",
        trajectory=Trajectory(
            token_ids=(5, 6, 7),
            loss_mask=(0, 1, 1),
            logprobs=(0.0, -0.5, -1.25),
            policy_version=2,
            turns=(Turn(start=1, end=3, policy_version=2),),
            temperature=0.6,
        ),
        answer="1| x = 1",
        policy_version=2,
        info={"step": step, "patch": "diff"},
    )
    return dataclasses.replace(episode, **changes)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    length = draw(st.integers(0, 6))
    sized = {"min_size": length, "max_size": length}
    trajectory = Trajectory(
        token_ids=tuple(draw(st.lists(st.integers(0, 2**31), **sized))),
        loss_mask=tuple(draw(st.lists(st.integers(0, 1), **sized))),
        logprobs=tuple(draw(st.lists(st.floats(max_value=0, allow_nan=False), **sized))),
        policy_version=draw(st.integers(0, 99)),
    )
    return make_episode(
        role=draw(st.sampled_from(["injector", "solver"])),
        bug_id=draw(st.none() | st.text()),
        status=draw(st.sampled_from(["completed", "truncated", "errored"])),
        reward=draw(st.none() | st.floats(-1, 1)),
        answer=draw(st.text(st.characters())),
        trajectory=draw(st.none() | st.just(trajectory)),
        info=draw(st.dictionaries(st.text(), st.none() | st.text() | st.integers(), max_size=3)),
    )


@given(episode=episodes())
def test_episode_round_trip_through_json_text(episode: Episode) -> None:
    assert episode_from_dict(json.loads(json.dumps(episode_to_dict(episode)))) == episode


def test_episode_line_by_value() -> None:
    line = json.loads(json.dumps(episode_to_dict(make_episode())))
    assert line["num_tokens"] == 2
    assert line["trajectory"] == {
        "token_ids": [5, 6, 7],
        "loss_mask": [0, 1, 1],
        "logprobs": [0.0, -0.5, -1.25],
        "policy_version": 2,
        "turns": [[1, 3, 2]],
        "temperature": 0.6,
    }


def test_a_logprob_of_minus_infinity_stays_strict_json() -> None:
    episode = make_episode(
        trajectory=Trajectory(
            token_ids=(1,), loss_mask=(1,), logprobs=(float("-inf"),), policy_version=0
        )
    )
    text = json.dumps(episode_to_dict(episode), allow_nan=False)
    assert episode_from_dict(json.loads(text)) == episode


@pytest.mark.parametrize(
    ("change", "message"),
    [({"role": None}, None), ({"policy_version": "x"}, "step0"), ({"trajectory": {}}, "token_ids")],
)
def test_a_bad_episode_line_names_the_field(change: dict[str, object], message: str | None) -> None:
    line = {**episode_to_dict(make_episode()), **change}
    if message is None:
        del line["role"]
        message = "role: is missing"
    with pytest.raises(UserError, match=message):
        episode_from_dict(line)


def test_layout_of_a_new_run(tmp_path: Path) -> None:
    with RunDir(tmp_path / "runs" / "a") as run:
        run.write_config(CONFIG)
        run.append_episodes([make_episode()])
        run.write_summary({**SUMMARY, "details": {"extra": 1}})
        names = {path.name for path in run.path.iterdir()}
    assert {"config.yaml", "episodes.jsonl", "summary.json", "run.json"} <= names
    assert {"artifacts", "checkpoints", "weights", "logs"} <= names
    tries = json.loads((tmp_path / "runs/a/run.json").read_text())["tries"]
    assert [entry["try"] for entry in tries] == [1]
    assert tries[0]["seed"] == 3
    assert tries[0]["version"] == __version__
    assert set(code_state(tmp_path)) == {"commit", "dirty"}


def test_summary_has_exactly_the_agreed_keys(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        with pytest.raises(AssertionError, match="wall_s"):
            run.write_summary({k: v for k, v in SUMMARY.items() if k != "wall_s"})
        with pytest.raises(AssertionError, match="other"):
            run.write_summary({**SUMMARY, "other": 1})
        run.write_summary({**SUMMARY, "solve_rate_first": float("nan")})
        assert run.read_json("summary.json")["solve_rate_first"] is None


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"file/a: cannot be written .*runs_dir="):
        RunDir(file / "a")
    with pytest.raises(UserError, match="cannot be written"):
        RunDir(Path("/proc/selfplay-run"))


def test_two_processes_cannot_run_one_directory(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom selfplay.cli import main\n"
        "from selfplay.run_dir import RunDir\nfrom selfplay.errors import UserError\n"
        "try:\n    RunDir(Path(sys.argv[1]))\nexcept UserError as error:\n    print(error)\n"
        "else:\n    print('open')\n"
    )

    def other() -> str:
        command = [sys.executable, "-c", program, str(tmp_path / "a")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with RunDir(tmp_path / "a"):
        assert f"in use by process {os.getpid()}" in other()
        with pytest.raises(UserError, match="in use"):
            RunDir(tmp_path / "a")
    assert other() == "open\n"


def test_resume_never_refuses_a_run_with_results(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a", resume=False) as run:
        run.write_config(CONFIG)
    with RunDir(tmp_path / "a", resume=False) as run:
        assert run.number_of_try == 2
        run.append_episodes([make_episode()])
    with pytest.raises(UserError, match="resume=auto"):
        RunDir(tmp_path / "a", resume=False)
    with RunDir(tmp_path / "a", resume=True) as run:
        assert run.number_of_try == 3


def test_a_resumed_run_keeps_its_configuration(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        run.write_config(CONFIG)
        run.write_config(CONFIG.replace("0.1", "0.2"))
        run.append_episodes([make_episode()])
    with RunDir(tmp_path / "a") as run:
        with pytest.raises(UserError, match=r"learner\.learning_rate"):
            run.write_config(CONFIG)
        longer = CONFIG.replace("0.1", "0.2").replace("steps: 4", "steps: 9")
        run.write_config(longer)
        assert run.config.read_text() == longer
        kept = sorted(path.name for path in run.logs.glob("config-before-*"))
        assert kept == ["config-before-try1.yaml", "config-before-try2.yaml"]


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its configuration lacks the keys that came later, and holds one that is gone."""
    old = CONFIG + "  save_every: 1\n"
    new = CONFIG + "  device: auto\n"
    with RunDir(tmp_path / "a") as run:
        run.write_config(old)
        run.append_episodes([make_episode()])
    with RunDir(tmp_path / "a") as run:
        with pytest.raises(UserError, match=r"learner\.device;"):
            run.write_config(new.replace("auto", "cuda"), defaults=new)
        run.write_config(new, defaults=new)
        assert run.config.read_text() == new


def test_a_torn_last_line_is_moved_away_at_open(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        run.append_episodes([make_episode(f"step0/solver/b/{i}") for i in range(3)])
    file = tmp_path / "a" / "episodes.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    with RunDir(tmp_path / "a") as run:
        assert [e.episode_id[-1] for e in run.read_episodes()] == ["0", "1"]
        run.append_episodes([make_episode("step1/solver/b/0", step=1)])
        assert len(list(run.read_episodes())) == 3
        torn = (run.logs / "torn-episodes.jsonl").read_bytes()
    assert whole.splitlines()[-1].startswith(torn.rstrip(b"\n"))


def test_a_repeated_step_is_read_once_and_both_tries_stay(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        run.append_episodes([make_episode("step0/solver/b/0", step=0)])
        run.append_episodes([make_episode(f"step1/solver/b/{i}", step=1) for i in range(3)])
    with RunDir(tmp_path / "a") as run:
        run.append_episodes([make_episode("step1/solver/c/0", step=1, reward=-1.0)])
    found = [episode.episode_id for episode in read_episodes(tmp_path / "a")]
    assert found == ["step0/solver/b/0", "step1/solver/c/0"]
    lines = (tmp_path / "a" / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["try"] for line in lines] == [1, 1, 1, 1, 2]


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        run.append_episodes([make_episode()])
        run.episodes.write_text(run.episodes.read_text() + '{"try": 1}\n')
        with pytest.raises(UserError, match=r"episodes\.jsonl:2: .*episode_id"):
            list(run.read_episodes())
        run.episodes.write_text("[]\n")
        with pytest.raises(UserError, match=r"episodes\.jsonl:1"):
            list(run.read_episodes())


def test_wall_time_adds_up_over_tries(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        first = run.add_wall(time.monotonic() - 10)
    with RunDir(tmp_path / "a") as run:
        total = run.add_wall(time.monotonic() - 5)
    assert 10 <= first < 11
    assert 15 <= total < 17


def test_json_documents(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        assert run.read_json("eval_before.json") is None
        run.write_json("eval_before.json", {"pass@1": float("inf"), "n": 2})
        assert run.read_json("eval_before.json") == {"pass@1": None, "n": 2}
        (run.path / "eval_after.json").write_text("{")
        with pytest.raises(UserError, match=r"eval_after\.json: not JSON"):
            run.read_json("eval_after.json")
