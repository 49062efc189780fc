"""Program: `python -P sdist.py PROJECT VERSION FOLDER [pip options]` saves a release's source
archive in FOLDER.

`pip download` would run the release's own build backend on this machine, only to learn what it is
called; this asks pip's finder for the link and stops there. pip's configuration (indexes, proxies,
certificates, credentials) holds as it does for pip. pip's internals promise no stability: they are
confined to this file, which runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pip._internal.commands.download import DownloadCommand
from pip._vendor.packaging.specifiers import SpecifierSet


def main(arguments: Sequence[str]) -> int:
    """Exit code 0, or 1 with one line on stderr that starts with "ERROR: "."""
    project, version, folder, *options = arguments
    command = DownloadCommand("download", "save a source archive")
    with command.main_context():
        flags = ["-q", "--no-input", "--no-binary", project, *options, f"{project}=={version}"]
        values, _ = command.parse_args(flags)
        session = command.get_default_session(values)
        finder = command._build_package_finder(values, session, ignore_requires_python=True)
        found = finder.find_best_candidate(project, SpecifierSet(f"=={version}")).best_candidate
        if found is None:
            known = sorted({str(c.version) for c in finder.find_all_candidates(project)})
            sys.stderr.write(f"ERROR: the package index has none; it has {known[-5:]}\n")
            return 1
        link = found.link
        answer = session.get(link.url.split("#", 1)[0], headers={"Accept-Encoding": "identity"})
        answer.raise_for_status()
        name, wanted = link.hash_name, link.hash
        if name and hashlib.new(name, answer.content).hexdigest() != wanted:
            sys.stderr.write(f"ERROR: {link.filename} does not match its {name}\n")
            return 1
    target = Path(folder) / Path(link.filename).name
    target.write_bytes(answer.content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
