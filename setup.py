"""The wheel takes `conf/` and `repos/`, which stand at the top of the repository, as data.

`selfplay/shipped.py` finds them in either place. Everything else is said in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    """Copies both folders to the package's own data; an editable install reads them in place."""

    def run(self) -> None:
        super().run()
        for name in () if self.editable_mode else ("conf", "repos"):
            target = Path(self.build_lib) / "selfplay" / "data" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))


setup(cmdclass={"build_py": BuildWithData})
