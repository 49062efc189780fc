"""Models of the hub: what is downloaded, and what is said where it is not given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

FILES = {
    "config.json": "{}", "model.safetensors": "weights", "tokenizer.model": "pieces",
    "consolidated.safetensors": "weights again", "original/model.safetensors": "and again",
    "pytorch_model.bin": "in another form",
}  # fmt: skip
SHA = "a" * 40
RESOLVE = """
import sys
from pathlib import Path
from selfplay.errors import UserError
from selfplay.modeling.model_files import resolve_model

try:
    print(*sorted(path.name for path in resolve_model(sys.argv[1], Path("cache")).iterdir()))
except UserError as error:
    sys.exit(str(error))
"""


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download speaks, for models called by their fate."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        codes = {"gated": "GatedRepo", "absent": "RepoNotFound"}
        fate = next((code for name, code in codes.items() if f"maker/{name}" in self.path), "")
        if fate:
            self.answer(401 if fate == "RepoNotFound" else 403, b"", {"X-Error-Code": fate})
        elif "/tree/" in self.path:
            tree = [
                {"type": "file", "path": name, "size": len(text), "oid": name}
                for name, text in FILES.items()
            ]
            self.answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif "/api/models/" in self.path:
            names = [{"rfilename": name} for name in FILES]
            about = {"id": "maker/open", "sha": SHA, "siblings": names}
            self.answer(200, json.dumps(about).encode(), {"Content-Type": "application/json"})
        elif f"/resolve/{SHA}/" not in self.path:
            self.answer(404, b"", {})
        else:
            name = self.path.split(f"/resolve/{SHA}/")[1]
            headers = {"ETag": f'"{name}"', "X-Repo-Commit": SHA}
            self.answer(200, FILES[name].encode(), headers)

    def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def resolve(name: str, hub: str, folder: Path) -> subprocess.CompletedProcess[str]:
    variables = {"HF_ENDPOINT": hub, "HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", RESOLVE, name],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0", **variables},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_no_weights_are_downloaded_twice(hub: str, tmp_path: Path) -> None:
    """Some repositories hold them again, in the layout of their makers."""
    done = resolve("maker/open", hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["config.json", "model.safetensors", "tokenizer.model"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("maker/gated", "accept their terms on its page, then set HF_TOKEN"),
        ("maker/absent", "no such model, or a private one"),
    ],
)
def test_why_a_model_is_not_given(hub: str, tmp_path: Path, name: str, said: str) -> None:
    done = resolve(name, hub, tmp_path)
    assert done.returncode == 1 and said in done.stderr and f"policy.model={name!r}" in done.stderr


def test_a_hub_out_of_reach(tmp_path: Path) -> None:
    done = resolve("maker/open", "http://127.0.0.1:9", tmp_path)
    assert done.returncode == 1 and "the hub cannot be reached" in done.stderr
