"""What a file that a commit touches is to a mined bug: source, test, beside it, or aside.

source    what the bug may lie in: code, and data that lies with the changed code
test      test modules, their helpers and data: the oracle
beside    configuration, data that lies elsewhere, examples: as before the commit, unless the
          commit's tests need it; then it belongs to the oracle
aside     documents, change logs, lock files, CI, git's own files: always as before the commit,
          for they tell what was mended, or have no part in a run
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Literal

from selfplay.bugs.patches.paths import is_hook_path, is_test_path
from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.repo.discovery.test_names import USUAL_NAMES, TestNames

Kind = Literal["source", "test", "beside", "aside"]

CODE = frozenset(
    {
        *(".py", ".pyi", ".pyx", ".pxd", ".pl", ".pm", ".js", ".ts", ".jsx", ".tsx", ".mjs"),
        *(".rb", ".go", ".rs", ".c", ".h", ".cc", ".cpp", ".hpp", ".java", ".kt", ".lua", ".php"),
        *(".ex", ".exs", ".sh", ".scala", ".swift", ".cs"),
    }
)
_DOCUMENTS = (".md", ".rst", ".adoc", ".markdown", ".mdx", ".rdoc", ".org", ".ipynb")
_TEXT = r"(\.(md|rst|txt|adoc|markdown|mkd|html|in|asc|org|[0-9.]+))*"
_LOG_NAME = re.compile(
    r"^(changes?|change[-_]?logs?|news|history|release[-_]?notes?|releases?|whats[-_]?new"
    rf"|authors|contributors|thanks|copying|readme|todo){_TEXT}$",
    re.IGNORECASE,
)
_LOG_FOLDER = re.compile(
    r"(^|/)(change[-_]?logs?|changes?|news(fragments?)?|release[-_]?notes?|towncrier"
    r"|\.changesets?|\.changes)(\.d)?/",
    re.IGNORECASE,
)
_DOC_FOLDER = re.compile(r"^(docs?|documentation|website)/", re.IGNORECASE)
_LOCK = re.compile(
    r"^(.*\.lock|package-lock\.json|npm-shrinkwrap\.json|pnpm-lock\.yaml|go\.sum"
    r"|.*requirements.*\.txt|constraints.*\.txt)$",
    re.IGNORECASE,
)
_CI = re.compile(
    r"^(\.github|\.gitlab|\.circleci|\.azure|\.azure-pipelines|\.buildkite|\.devcontainer|\.vscode"
    r"|\.idea|\.ci|ci)/"
    r"|^\.(travis|gitlab-ci|appveyor|readthedocs|pre-commit-config|codecov|cirrus)\.ya?ml$"
    r"|^(appveyor|azure-pipelines|codecov|mkdocs|bitbucket-pipelines)\.ya?ml$|^Jenkinsfile$"
    r"|(^|/)(Dockerfile[^/]*|docker-compose[^/]*|\.dockerignore|\.editorconfig|\.mailmap)$",
)
_GIT = frozenset({".gitattributes", ".gitmodules", ".gitignore", ".git-blame-ignore-revs"})
_BESIDE = re.compile(r"^(examples?|samples?|demos?|benchmarks?|bench|scripts?|tools?)/", re.I)
_BUILD = re.compile(r"^(setup|versioneer|noxfile|tasks|fabfile|dodo|manage)\.py$")
_TEST_DATA = re.compile(
    r"(^|/)([^/]*[-_])?(test[-_]?(data|cases?|files|fixtures)|fixtures|(__)?snapshots(__)?"
    r"|golden|cassettes)/",
    re.IGNORECASE,
)


_TEST_MODULE = FRAMEWORKS["pytest"].test_file


def is_test_module(path: str, names: TestNames = USUAL_NAMES) -> bool:
    """Whether a runner collects the file (by pytest's own patterns, generously, or the names that
    the project gives to its tests)."""
    return bool(_TEST_MODULE.match(PurePosixPath(path).name)) or names.is_module(path)


def kinds_of(paths: Iterable[str], names: TestNames = USUAL_NAMES) -> dict[str, Kind]:
    """The kind of each file that one commit touches.

    Data counts as source where it lies with code that the commit changes, in the same folder or
    below. Where no source is left, code beside it is what was mended, or else data.
    """
    kinds = {path: _kind(path, names) for path in paths}
    code = [path for path, kind in kinds.items() if kind == "source" and _is_code(path)]
    folders = {_folder(path) for path in code} - {""}
    for path, kind in kinds.items():
        if kind == "source" and not _is_code(path) and not path.startswith(tuple(folders)):
            kinds[path] = "beside"
    for is_wanted in (_is_code, lambda path: bool(_folder(path)) and not _TEST_DATA.search(path)):
        if "source" not in kinds.values():
            for path, kind in kinds.items():
                steers = is_hook_path(path) or _BUILD.match(path)
                if kind == "beside" and is_wanted(path) and not steers:
                    kinds[path] = "source"
    return kinds


def _kind(path: str, names: TestNames) -> Kind:
    folder, code = _folder(path), _is_code(path)
    name = path.removeprefix(folder)
    if name in _GIT or _CI.search(path) or _LOCK.match(name):
        return "aside"
    if is_test_path(path, names=names):
        return "test"
    if _DOC_FOLDER.match(path) or name.lower().endswith(_DOCUMENTS):
        return "aside"
    if not code and (_LOG_FOLDER.search(folder) or _LOG_NAME.match(name)):
        return "aside"
    if (
        _BUILD.match(path)
        or is_hook_path(path)
        or _BESIDE.match(path)
        or (_TEST_DATA.search(folder) and not code)
    ):
        return "beside"
    return "source" if folder or code else "beside"  # at the root: configuration, most of all


def _is_code(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in CODE


def _folder(path: str) -> str:
    """ "a/b/" of "a/b/c", "" of "c"."""
    return path[: path.rfind("/") + 1]
