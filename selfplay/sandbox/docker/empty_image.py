"""The image of empty directories that mounts make into a root."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

DIRECTORIES = "bin dev etc in lib lib32 lib64 out proc sandbox sbin sys testbed tmp usr"


def empty_directories(links: Mapping[str, str]) -> bytes:
    """A tar archive of empty directories and root links: the whole image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in sorted({*DIRECTORIES.split(), *(link[1:] for link in links)}):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            if f"/{name}" in links:
                entry.type, entry.linkname = tarfile.SYMTYPE, links[f"/{name}"]
            archive.addfile(entry)
    return buffer.getvalue()
