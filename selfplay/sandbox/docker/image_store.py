"""What a sandbox that runs images offers to those who prepare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from selfplay.errors import UserError
from selfplay.sandbox.base import Sandbox
from selfplay.sandbox.pool import RetryingSandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """An image as the engine knows it: `id` (a hash of its content) and the variables it sets."""

    id: str
    variables: Mapping[str, str]


@runtime_checkable
class ImageStore(Protocol):
    """A sandbox that has images."""

    def find_image(self, name: str) -> ImageFacts:
        """An image by name, pulled where it is missing. `UserError` when it cannot be had."""
        ...

    def copy_from_image(self, image: str, path: str, archive: Path, max_bytes: int) -> None:
        """Write a directory of an image into a tar file; nothing of the image is run.

        `UserError` when there is no such directory, `SandboxError` above `max_bytes`.
        """
        ...


def image_store(sandbox: Sandbox, wanted: str) -> ImageStore:
    """The sandbox as a store of images; `UserError`, which names what was `wanted`, for others."""
    inner: object = sandbox.inner if isinstance(sandbox, RetryingSandbox) else sandbox
    if not isinstance(inner, ImageStore):
        raise UserError(f"{wanted}: images need sandbox=docker, not {sandbox.name}")
    return inner
