"""Runs inside an image, under its own Python of whatever version: what tests can be run with there.
Writes /out/python.json. Self-contained."""

import importlib.util
import json
import os
import sys


def main() -> None:
    with open("/in/modules.json") as file:  # noqa: PTH123
        modules = json.load(file)
    copies = []
    for folder in sys.path:
        inside = folder.startswith("/testbed/")
        if inside or os.path.basename(folder) not in ("site-packages", "dist-packages"):  # noqa: PTH119
            continue
        for name in modules:
            for place in (os.path.join(folder, name), os.path.join(folder, name + ".py")):  # noqa: PTH118
                if os.path.exists(place) and not os.path.islink(place):  # noqa: PTH110, PTH114
                    copies.append([place, os.path.isdir(place)])  # noqa: PTH112
    found = {
        "version": "%d.%d" % sys.version_info[:2],  # noqa: UP031
        "missing": [n for n in ("pytest", "coverage") if importlib.util.find_spec(n) is None],
        "executable": sys.executable,
        "copies": copies,
    }
    with open("/out/python.json", "w") as file:  # noqa: PTH123
        json.dump(found, file)


main()
