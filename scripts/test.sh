#!/usr/bin/env bash
# Installs what the tests need and runs the whole suite: ruff, mypy, pytest.
# As root on Debian it installs and starts the Docker engine too. Arguments go to pytest.
# Two processes of pytest at a time; SELFPLAY_TEST_WORKERS says otherwise (0: one, in the open).
# With CI=true a test that cannot run here is a failure; otherwise it is listed as not run.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

as_root_on_debian() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

if as_root_on_debian; then
    missing=()
    command -v git >/dev/null || missing+=(git)
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v chromium >/dev/null || missing+=(chromium)
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing with apt-get: ${missing[*]} (for tests of the Docker sandbox and of the report)"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    fi
    if ! docker info >/dev/null 2>&1; then
        say "starting dockerd"
        pgrep -x dockerd >/dev/null || rm -f /var/run/docker.pid  # left by a killed engine
        setsid nohup dockerd >/tmp/selfplay-dockerd.log 2>&1 </dev/null &
        for _ in $(seq 60); do docker info >/dev/null 2>&1 && break; sleep 0.5; done
        docker info >/dev/null 2>&1 || say "dockerd did not start; see /tmp/selfplay-dockerd.log"
    fi
fi

make_venv "${SELFPLAY_VENV:-.venv}"
install_selfplay cpu,dev
(install_vllm "${SELFPLAY_VLLM_VENV:-.venv-vllm}") &  # while the code is looked at
installing=$!

"$PY" -m ruff check --no-cache .
"$PY" -m ruff format --check .
"$PY" -m mypy
"$PY" -m mypy scripts/*.py
wait "$installing"
install_vllm "${SELFPLAY_VLLM_VENV:-.venv-vllm}"  # is there now, or says again why not
# Files are dealt out whole: what a file starts (a server, a prepared repository) it shares. In the
# order of tests/conftest.py: by number of tests, which is the default, the slowest come last.
exec "$PY" -m pytest -n "${SELFPLAY_TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"
