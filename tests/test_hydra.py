"""`selfplay` as a Hydra application: sweeps, its options, folders of one's own, completion."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import yaml

from selfplay.cli import COMMANDS
from selfplay.commands.application import _parted, _sweep_name
from selfplay.config import TrainConfig
from selfplay.config.overrides import read_override
from selfplay.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
TINY = (
    "experiment=samples", "repos.train=[sample-textkit]", "curriculum.num_groups=1",
    "curriculum.seeds_per_group=1", "curriculum.group_size=2", "curriculum.samples_per_seed=1",
    "metrics.tensorboard=false", "steps=1",
)  # fmt: skip


def selfplay(*words: str, cwd: Path = ROOT, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "selfplay", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return done


def test_the_configuration_is_shown_and_nothing_is_written(tmp_path: Path) -> None:
    words = ("train", "experiment=samples", f"runs_dir={tmp_path / 'runs'}")
    job = yaml.safe_load(selfplay(*words, "--cfg", "job", "--resolve", cwd=tmp_path).stdout)
    assert (job["name"], job["sandbox"]["name"]) == ("samples", "bubblewrap")
    whole = yaml.safe_load(selfplay(*words, "--cfg", "hydra", cwd=tmp_path).stdout)["hydra"]
    assert whole["job"]["chdir"] is False and whole["output_subdir"] is None
    assert "Defaults List" in selfplay(*words, "--info", "defaults", cwd=tmp_path).stdout
    selfplay(*words, "dry_run=true", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_ones_own_lies_beside_ours(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults: [samples]\nname: mine\nsteps: 7\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    (tmp_path / "own.yaml").write_text("defaults: [train, _self_]\nsteps: 9\n")
    words = ("train", "--config-dir", str(tmp_path), "--cfg", "job")
    job = yaml.safe_load(selfplay(*words, "experiment=mine").stdout)
    assert (job["name"], job["steps"], job["policy"]["engine"]) == ("mine", 7, "scripted")
    assert yaml.safe_load(selfplay(*words, "-cn", "own").stdout)["steps"] == 9
    (tmp_path / "bare.yaml").write_text("stepz: 1\n")
    done = selfplay("train", "-cd", str(tmp_path), "-cn", "bare", code=2)
    assert "stepz" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--bogus"], "unknown option --bogus"),
        (["train", "--cfg", "foo"], "--cfg foo: must be job or hydra or all"),
        (["train", "--resolve"], "--resolve flag can only be used"),
        (["train", "--config-name", "nosuch"], "Cannot find primary config 'nosuch'"),
        (["train", "--config-dir", "/no/such"], "'/no/such' not found"),
        (["train", "experiment=nosuch"], "one_gpu, one_gpu_small, one_node, quickstart, samples"),
        (["train", "hydra.bogus=1"], "hydra.bogus"),
        (["train", "steps=many"], "Value 'many' of type 'str' could not be converted"),
        (["train", "-m", "hydra/launcher=nosuch", "seed=1,2"], "hydra/launcher/nosuch"),
    ],
)
def test_what_hydra_refuses_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    done = selfplay(*words, f"runs_dir={tmp_path}", code=2)
    assert said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_each_command_says_what_it_composes() -> None:
    for name in COMMANDS:
        module = importlib.import_module(f"selfplay.commands.{name.replace(' ', '_')}")
        text = (ROOT / "conf" / f"{module.CONFIG}.yaml").read_text()
        assert f"- {module.CONFIG}_schema\n  - application\n" in text, module.CONFIG
        assert is_dataclass(module.SCHEMA)


def test_options_stand_anywhere() -> None:
    options, overrides = _parted(["a=1", "-m", "b=2", "-cd", "/x", "--info", "c=3", "--cfg=job"])
    assert overrides == ["a=1", "b=2", "c=3"]
    assert options == ["--multirun", "--config-dir", "/x", "--info", "--cfg", "job"]
    with pytest.raises(UserError, match="--cfg: needs a value"):
        _parted(["a=1", "--cfg"])
    with pytest.raises(UserError, match="unknown option"):
        _parted(["-x"])


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("policy.model=/a b,/c(d)", "policy.model='/a b','/c(d)'"),
        ("name=001,1e3", "name='001','1e3'"),
        ("name='a,b'", "name='a,b'"),
        ("name=choice(a,b)", "name=choice(a,b)"),
        ("seed=1,2,3", "seed=1,2,3"),
        ("seed=range(1,4)", "seed=range(1,4)"),
        ("repos.train=[a],[b]", "repos.train=[a],[b]"),
        ("repos.train=[a,/b(c)]", "repos.train=['a','/b(c)']"),
        ("experiment=samples,quickstart", "experiment=samples,quickstart"),
    ],
)
def test_texts_are_swept_too(word: str, read: str) -> None:
    assert read_override(TrainConfig, word, sweep=True) == read


def test_names_of_a_sweep() -> None:
    assert _sweep_name("samples", "seed=1") == "samples-seed=1"
    assert _sweep_name("a", "") == "a", "where the name itself is swept"
    assert _sweep_name("a", "policy.model='/x/y z'") == "a-policy.model=_x_y_z"
    long = {_sweep_name("a", f"key={'x' * 200}{i}") for i in range(2)}
    assert len(long) == 2 and all(len(name) < 120 for name in long)


@pytest.mark.slow
def test_three_runs_with_names_of_their_own(tmp_path: Path) -> None:
    words = ("train", "-m", *TINY, f"runs_dir={tmp_path}", "json=true", "seed=1,2,3")
    done = selfplay(*words)
    decoder, text, documents = json.JSONDecoder(), done.stdout.strip(), []
    while text:
        document, end = decoder.raw_decode(text)
        documents.append(document)
        text = text[end:].strip()
    assert len(documents) == 3
    names = [f"samples-seed={seed}" for seed in (1, 2, 3)]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == names
    for seed, name in enumerate(names, 1):
        config = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        assert (config["name"], config["seed"]) == (name, seed)
        assert (tmp_path / name / "summary.json").is_file()
        kept = yaml.safe_load((tmp_path / name / ".hydra" / "overrides.yaml").read_text())
        assert f"seed={seed}" in kept


def test_a_job_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    words = ("train", "-m", f"runs_dir={tmp_path}", "dry_run=true", "experiment=samples")
    done = selfplay(*words, "curriculum.group_size=0,2", cwd=tmp_path, code=2)
    assert "selfplay: curriculum.group_size=0: must be at least 1" in done.stderr
    assert "job 1" in done.stderr and "group_size: 2" in done.stdout
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"


def test_the_run_directory_may_be_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = selfplay("train", "experiment=samples", f"hydra.run.dir={file}/x", code=2)
    assert str(file) in done.stderr and "cannot be written" in done.stderr


COMPLETE = """
eval "$(selfplay -sc install=bash)"
try() {
    COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDS=($1)
    [ "${1: -1}" = " " ] && COMP_WORDS+=("")
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMPREPLY=()
    hydra_bash_completion
    echo "$1:${COMPREPLY[*]}"
}
try "selfplay tr"; try "selfplay trai"; try "selfplay repos "; try "selfplay train experiment=sam"
try "selfplay repos prepare sandbox=au"
"""


def test_bash_completes(tmp_path: Path) -> None:
    command = tmp_path / "selfplay"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nfrom selfplay.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", COMPLETE],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "selfplay tr:traces train",
        "selfplay trai:train",
        "selfplay repos :prepare",
        "selfplay train experiment=sam:experiment=samples",
        "selfplay repos prepare sandbox=au:sandbox=auto",
    ]
