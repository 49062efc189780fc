"""The metrics log: one line a step, TensorBoard events, and no failure that stops a run."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from selfplay.commands.summary import print_summary, summarise
from selfplay.commands.watch import RunWatcher
from selfplay.config import MetricsConfig, TrainConfig
from selfplay.corpus.corpus import Corpus
from selfplay.errors import UserError
from selfplay.files import append_json_lines
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import MetricsLog, check_metrics, current_names, joined, within

PLAIN = MetricsConfig(tensorboard=False)


def rows(run: RunDir) -> list[dict[str, float]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def test_one_line_a_step(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        metrics = MetricsLog(run, PLAIN)
        metrics.log(0, {"solve_rate": 0.5})
        metrics.log(1, {"solve_rate": 0.25, "num_valid": 3.0})
        assert rows(run) == [
            {"step": 0, "solve_rate": 0.5},
            {"step": 1, "solve_rate": 0.25, "num_valid": 3.0},
        ]
        assert run.next_step() == 2


def test_a_repeated_step_replaces_its_row_and_later_ones(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        metrics = MetricsLog(run, PLAIN)
        for step in range(4):
            metrics.log(step, {"x": float(step)})
        again = MetricsLog(run, PLAIN)
        again.truncate_after(2)
        assert [row["step"] for row in rows(run)] == [0, 1, 2]
        again.log(1, {"x": 7.0})
        assert rows(run) == [{"step": 0, "x": 0.0}, {"step": 1, "x": 7.0}]


def test_ensure_writes_a_missing_row_alone(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        metrics = MetricsLog(run, PLAIN)
        metrics.log(0, {"learner/x": 0.0})
        metrics.ensure(0, {"learner/x": 9.0})
        metrics.ensure(1, {"learner/x": 1.0})
        assert rows(run) == [{"step": 0, "learner/x": 0.0}, {"step": 1, "learner/x": 1.0}]


def test_a_torn_row_is_repaired_and_written_again(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        metrics = MetricsLog(run, PLAIN)
        metrics.log(0, {"learner/x": 0.0})
        metrics.log(1, {"learner/x": 1.0})
    file = tmp_path / "a" / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    with RunDir(tmp_path / "a") as run:
        metrics = MetricsLog(run, PLAIN)
        metrics.ensure(1, {"learner/x": 1.0})
        assert rows(run) == [{"step": 0, "learner/x": 0.0}, {"step": 1, "learner/x": 1.0}]


def test_numbers_that_are_not_finite_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunDir(tmp_path / "a") as run, caplog.at_level(logging.WARNING):
        MetricsLog(run, PLAIN).log(0, {"x": float("nan"), "y": 1.0, "z": float("inf")})
        assert rows(run) == [{"step": 0, "y": 1.0}]
    assert "x, z" in caplog.text


def test_tensorboard_reads_the_scalars(tmp_path: Path) -> None:
    with RunDir(tmp_path / "a") as run:
        metrics = MetricsLog(run, MetricsConfig())
        for step in range(3):
            metrics.log(step, {"solver/reward": step / 2})
        metrics.close()
        metrics.close()
        resumed = MetricsLog(run, MetricsConfig())
        resumed.truncate_after(1)
        resumed.log(2, {"solver/reward": 9.0})
        resumed.close()
        events = EventAccumulator(str(run.tensorboard))
        events.Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("solver/reward")]
    assert scalars == [(0, 0.0), (1, 0.5), (2, 9.0)]


def test_wandb_holds_the_rows_and_a_resumed_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package, offline: its history lies below the run directory."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = MetricsConfig(tensorboard=False, wandb=True, wandb_project="tests")
    with RunDir(tmp_path / "a") as run:
        for step in range(2):
            metrics = MetricsLog(run, config)
            metrics.log(step, {"solver/reward": 0.5 + step})
            metrics.close()
        (name,) = {json.loads((run.path / "wandb.json").read_text())["id"]}
    histories = list((tmp_path / "a" / "wandb").rglob(f"run-{name}.wandb"))
    assert len(histories) == 2
    for _ in range(100):  # wandb's own process writes after `finish` has returned
        written = [b"solver/reward" in history.read_bytes() for history in histories]
        if all(written):
            break
        time.sleep(0.1)
    assert all(written)


def test_wandb_that_is_not_installed_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install .selfplay\[wandb\]"):
        check_metrics(MetricsConfig(wandb=True))
    check_metrics(MetricsConfig())


def test_wandb_that_cannot_start_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with RunDir(tmp_path / "a") as run, caplog.at_level(logging.WARNING):
        run.write_json("wandb.json", {"id": "no/such:name"})
        metrics = MetricsLog(run, MetricsConfig(tensorboard=False, wandb=True))
        for step in range(2):
            metrics.log(step, {"x": 1.0})
        metrics.close()
        assert [row["step"] for row in rows(run)] == [0, 1]
    assert caplog.text.count("wandb fails") == 1


def test_a_sink_that_fails_is_reported_once_and_never_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunDir(tmp_path / "a") as run, caplog.at_level(logging.WARNING):
        run.tensorboard.write_text("a file where the folder belongs")
        metrics = MetricsLog(run, MetricsConfig())
        run.metrics.mkdir()
        for step in range(3):
            metrics.log(step, {"x": 1.0})
        metrics.close()
    assert caplog.text.count("tensorboard fails") == 1
    assert caplog.text.count("metrics.jsonl fails") == 1


def test_a_name_that_is_written_twice_is_an_error() -> None:
    """Bug: the learner's trained tokens took the place of the sampled ones."""
    played, learned = {"num_tokens": 42.0}, {"num_tokens": 11.0, "loss": 0.5}
    with pytest.raises(ValueError, match="written twice: num_tokens"):
        joined(played, learned)
    row = joined(within("play", played), within("learner", learned))
    assert row == {"play/num_tokens": 42.0, "learner/num_tokens": 11.0, "learner/loss": 0.5}


def test_the_bar_shows_what_was_sampled_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "play/num_tokens": 84.0, "learner/num_tokens": 22.0, "curriculum/step_s": 2.0,
        "injector/valid_rate": 0.25, "solver/solve_rate": 0.5,
    }  # fmt: skip
    with RunWatcher("r", 1) as watcher:
        watcher.step_done(0, row)
    assert "valid 25%, solved 50%, 42 tok/s" in capsys.readouterr().err


def test_rows_of_older_runs_get_the_names_of_today(tmp_path: Path) -> None:
    old = {
        "step": 3, "num_valid": 2.0, "solver/reward": -1.0, "injector/advantage_abs": 0.5,
        "loss": 0.25, "groups_trained": 1.0, "step_s": 9.0,
    }  # fmt: skip
    new = {
        "step": 3, "injector/num_valid": 2.0, "solver/reward": -1.0,
        "learner/injector/advantage_abs": 0.5, "learner/loss": 0.25,
        "learner/groups_trained": 1.0, "curriculum/step_s": 9.0,
    }  # fmt: skip
    assert current_names(old) == new
    assert current_names(new) == new
    with RunDir(tmp_path / "a") as run:  # the row that an older version's checkpoint holds
        MetricsLog(run, PLAIN).ensure(3, old)
        assert rows(run) == [new]


def test_a_run_that_an_older_version_began_is_summed_up(tmp_path: Path) -> None:
    """Its first rows have the names of then, those after the resume the names of today."""
    then = {"num_valid": 1.0, "num_injections": 4.0, "num_resolved": 2.0, "num_attempts": 8.0}
    now = {"injector/num_valid": 3.0, "injector/num_injections": 4.0, "learner/groups_trained": 2.0}
    with RunDir(tmp_path / "a") as run, Corpus(run.corpus) as corpus:
        old = [{"step": s, **then, "groups_trained": 1.0, "num_errored": 1.0} for s in range(4)]
        append_json_lines(run.metrics, [*old, {"step": 4, **now}])
        summary = summarise(TrainConfig(), run, corpus, wall_s=1.0)
    assert (summary["valid_rate_first"], summary["valid_rate_last"]) == (0.25, 0.75)
    assert summary["solve_rate_first"] == 0.25
    assert summary["details"]["optimizer_steps"] == 5
    assert summary["details"]["groups_with_variance"] == 6.0
    assert summary["details"]["errored_episodes"] == 4.0


def test_informative_groups_of_a_run_are_counted_and_divided_by_its_minutes(tmp_path: Path) -> None:
    """3 + 1 informative groups, 1 of them fresh, in 90 + 30 s: 2 and 0.5 a minute."""
    first = {
        "solver/num_groups": 8.0, "solver/num_fresh_groups": 5.0, "curriculum/step_s": 90.0,
        "solver/num_informative_groups": 3.0, "solver/num_informative_fresh_groups": 1.0,
        "solver/entropy": 0.9, "solver/distinct_answers": 5.0,
    }  # fmt: skip
    second = {
        **first, "curriculum/step_s": 30.0, "solver/num_informative_groups": 1.0,
        "solver/num_informative_fresh_groups": 0.0, "solver/entropy": 0.5,
    }  # fmt: skip
    with RunDir(tmp_path / "a") as run, Corpus(run.corpus) as corpus:
        append_json_lines(run.metrics, [{"step": 0, **first}, {"step": 1, **second}])
        summary = summarise(TrainConfig(), run, corpus, wall_s=1.0)
        print_summary(summary, run)
    assert summary["details"]["informative"] == {
        "groups": 16.0, "fresh_groups": 10.0, "informative_groups": 4.0,
        "informative_fresh_groups": 1.0, "informative_groups_per_min": 2.0,
        "informative_fresh_groups_per_min": 0.5,
    }  # fmt: skip
    assert (summary["details"]["entropy_first"], summary["details"]["entropy_last"]) == (0.9, 0.5)


def test_a_run_whose_last_steps_solved_nothing_is_summed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All their episodes were errored, say: a run that had ended well died of its own table."""
    solved = {"solver/entropy": 0.9, "solver/distinct_answers": 5.0}
    for number, (first, last) in enumerate([(solved, {}), ({}, solved)]):
        with RunDir(tmp_path / str(number)) as run, Corpus(run.corpus) as corpus:
            append_json_lines(run.metrics, [{"step": 0, **first}, {"step": 1, **last}])
            print_summary(summarise(TrainConfig(), run, corpus, wall_s=1.0), run)
        (line,) = [n for n in capsys.readouterr().out.splitlines() if "entropy, nats" in n]
        cells = [cell.strip() for cell in line.split("│")]
        assert cells[2:4] == (["0.90", "-"] if not number else ["-", "0.90"])
