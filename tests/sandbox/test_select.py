"""Which sandbox is chosen, and what is said where none works."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfplay.config import SandboxConfig
from selfplay.errors import SandboxError, UserError
from selfplay.sandbox.select import open_sandbox, sandbox_report


@pytest.mark.docker
def test_a_silent_engine_is_a_sandbox_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/docker.sock")
    with pytest.raises(SandboxError, match="no Docker engine"):
        open_sandbox("docker")
    opened = open_sandbox("auto")
    assert opened.name == "bubblewrap"
    opened.close()


@pytest.mark.docker
def test_auto_takes_docker_where_an_engine_answers() -> None:
    opened = open_sandbox("auto")
    assert opened.name == "docker"
    opened.close()


def test_never_unsafe_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/docker.sock")
    monkeypatch.setattr(
        "selfplay.sandbox.bubblewrap.sandbox.find_bwrap", lambda: Path("/no/such/bwrap")
    )
    with pytest.raises(SandboxError, match="sandbox=unsafe"):
        open_sandbox("auto")
    opened = open_sandbox("unsafe")
    assert opened.name == "unsafe"
    opened.close()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="sandbox=dokcer: use one of auto, bubblewrap"):
        open_sandbox("dokcer")


def test_report_names_both_backends() -> None:
    report = {name: works for name, works, _ in sandbox_report()}
    assert report["bubblewrap"] is True
    assert set(report) == {"bubblewrap", "docker"}


@pytest.mark.docker
def test_an_unknown_runtime_is_explained() -> None:
    for name in ("docker", "auto"):
        with pytest.raises(UserError, match=r"sandbox\.runtime=runxx.* knows .*runc.* register"):
            open_sandbox(name, SandboxConfig(runtime="runxx"))
    opened = open_sandbox("docker", SandboxConfig(runtime="runc"))
    opened.close()


def test_only_docker_has_runtimes() -> None:
    for name in ("bubblewrap", "unsafe"):
        with pytest.raises(UserError, match=rf"sandbox\.runtime=runsc: {name} .*sandbox=docker"):
            open_sandbox(name, SandboxConfig(runtime="runsc"))
