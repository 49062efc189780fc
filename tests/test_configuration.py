"""Configuration: each key explained and read by somebody; bounds are checked where they stand."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from selfplay.cache import cache_place
from selfplay.config import (
    AgentConfig,
    CurriculumConfig,
    InjectConfig,
    InjectorConfig,
    LearnerConfig,
    TrainConfig,
    ValidateConfig,
    load_config,
    read_config,
    to_yaml,
)
from selfplay.config.reference import keys, reference
from selfplay.errors import UserError
from selfplay.modeling.model_files import resolve_model
from selfplay.repo.spec import load_spec
from selfplay.types import Limits

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_what_the_classes_say() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m selfplay.config.reference docs/configuration.md"


def test_every_key_has_a_reader() -> None:
    """A key that nothing reads would be accepted and decide nothing."""
    sources = [path for path in (ROOT / "selfplay").rglob("*.py") if path.parent.name != "config"]
    sources.append(ROOT / "selfplay" / "config" / "commands.py")  # properties made of keys
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    read = set(re.findall(r"\.(\w+)\b", code))
    assert [key for key in keys() if key.rpartition(".")[2] not in read] == []


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "learner.importance_mode=drop",
            "learner.importance_mode='drop': must be truncate or mask",
        ),
        ("learner.importance_cap=0.5", "learner.importance_cap=0.5: must be at least 1"),
        ("learner.repetition_period=0", "learner.repetition_period=0: must be at least 1"),
        ("learner.lora_rank=-1", "learner.lora_rank=-1: must be 0 (full) or positive"),
        ("learner.solver_weight=-1", "learner.solver_weight=-1.0: must be at least 0"),
        ("scaffold.agent.max_turns=0", "scaffold.agent.max_turns=0: must be at least 1"),
        ("scaffold.agent.wall_s=0", "scaffold.agent.wall_s=0.0: must be above 0"),
        ("scaffold.public_share=1.5", "scaffold.public_share=1.5: must be from 0 to 1"),
        ("injector.script_timeout_s=0", "injector.script_timeout_s=0.0: must be above 0"),
        ("curriculum.group_size=0", "curriculum.group_size=0: must be at least 1"),
        ("sandbox.num_workers=0", "sandbox.num_workers=0: must be at least 1"),
        ("policy.vllm.num_servers=0", "policy.vllm.num_servers=0: must be at least 1"),
        ("resume=maybe", "resume='maybe': must be auto or never"),
    ],
)
def test_a_bound_names_key_value_and_remedy(override: str, problem: str) -> None:
    with pytest.raises(UserError, match=re.escape(problem)):
        load_config(TrainConfig, "train", [override])


def test_a_misspelt_key_is_an_error() -> None:
    for key in ("learner.clip_lo", "scaffold.agent.turns", "step", "learner.save_every"):
        with pytest.raises(UserError, match=key.rpartition(".")[2]):
            load_config(TrainConfig, "train", [f"{key}=1"])


def test_flat_keys_reach_the_class_that_reads_them() -> None:
    config = load_config(TrainConfig, "train", ["learner.clip_low=0.1", "scaffold.agent.wall_s=5"])
    assert (config.learner.clip_low, config.scaffold.agent.wall_s) == (0.1, 5.0)
    limits = load_config(ValidateConfig, "validate", ["repo=a", "artifact=b", "inverse_hunks=true"])
    assert limits.limits() == Limits(inverse_hunks=True)
    assert InjectorConfig(min_failing_tests=3).limits() == Limits(min_failing_tests=3)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    config = load_config(TrainConfig, "train", ["injector.strategies={direct: 1.0}", "steps=3"])
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert read_config(TrainConfig, file) == config
    file.write_text(to_yaml(config).replace("  clip_low: 0.2\n", "  save_every: 1\n"))
    assert read_config(TrainConfig, file) == config, "of an earlier version"
    once = to_yaml(config).replace("injector:\n", "injector:\n  temperature: null\n")
    file.write_text(once)
    assert "  temperature: null\n" in once and read_config(TrainConfig, file) == config
    file.write_text(to_yaml(config).replace("  clip_low", "  clip_lo"))
    with pytest.raises(UserError, match="clip_lo"):
        read_config(TrainConfig, file)


def test_a_configuration_does_not_change() -> None:
    config = load_config(TrainConfig, "train", [])
    with pytest.raises(FrozenInstanceError):
        config.learner.clip_low = 0.5  # type: ignore[misc]


def test_keys_that_do_not_go_together() -> None:
    with pytest.raises(UserError, match="need source=procedural"):
        InjectConfig(repo=["a", "b"])
    assert InjectConfig(repo=["a", "b"], source="procedural").names == ["a", "b"]
    with pytest.raises(UserError, match="both 0"):
        LearnerConfig(injector_weight=0.0, solver_weight=0.0)
    LearnerConfig(enabled=False, injector_weight=0.0, solver_weight=0.0)
    for make in (lambda: AgentConfig(num_open=0), lambda: CurriculumConfig(replay_low=-0.1)):
        with pytest.raises(UserError, match="must be"):
            make()


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few shells replace one behind `key=`, none within a list: folders called ~ were made."""
    monkeypatch.setenv("HOME", "/home/me")
    words = ["repos.train=[~/a,textkit]", "runs_dir=~/runs", "policy.vllm.args=[--template,~/t.j2]"]
    config = load_config(TrainConfig, "train", words)
    assert config.repos.train == ["/home/me/a", "textkit"] and config.runs_dir == "/home/me/runs"
    assert config.policy.vllm.args == ["--template", "/home/me/t.j2"]
    nobody = load_config(TrainConfig, "train", ["runs_dir=~nobody-of-that-name/x", "name='~'"])
    assert (nobody.runs_dir, nobody.name) == ("~nobody-of-that-name/x", "~")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that a container was started with: no HOME, no entry among the users."""
    for name in ("HOME", "SELFPLAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises(UserError, match=r"user 54321 has no home .* SELFPLAY_CACHE"):
        cache_place()
    with pytest.raises(UserError, match=r"neither a file .* nor a directory"):
        load_spec("~/project", ROOT / "repos")
    with pytest.raises(UserError, match="no such directory"):
        resolve_model("~nobody-of-that-name/model", ROOT)
