#!/usr/bin/env bash
# From a clean clone to a finished self-play run: environment, packages, repositories, training.
# Arguments are Hydra overrides, e.g.  bash scripts/quickstart.sh steps=4 name=short
# Needs Linux, Python 3.11+ and git. No GPU, no Docker, no root, no account.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
make_venv "${SELFPLAY_VENV:-.venv}"
install_selfplay cpu,report
exec "$PY" -m selfplay train experiment=quickstart "$@"
