#!/usr/bin/env bash
# Fills DIR with what scripts/gpu_check.py needs on a machine without network: on one with network,
#   bash scripts/gpu_pack.sh DIR [--model smollm2-135m|PATH] [--repos a,b,c] [--python-version 3.12]
#                                [--part-mb 45]
# What comes out: DIR/part_00, part_01, ... (each below --part-mb million bytes) and DIR/manifest.json.
# Wheels are for Linux on x86-64 and that Python; an interpreter of that version is used where there
# is one (PYTHON=..., python3.12), else pip is asked for another version's wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
[ $# -ge 1 ] && [ "${1#-}" = "$1" ] || die "usage: bash scripts/gpu_pack.sh DIR [--model NAME] [--repos a,b]"
version=3.12
for ((i = 2; i <= $#; i++)); do
    [ "${!i}" = --python-version ] && { j=$((i + 1)); version="${!j:-3.12}"; }
done
# Markers such as python_version < "3.12" are only judged rightly by pip of that very version.
base=""
for candidate in "${PYTHON:-}" "python$version" "$HOME"/.pyenv/versions/"$version"*/bin/python; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" || continue
    base="$candidate"
    break
done
[ -n "$base" ] || { base=$(find_python); say "no Python $version here: asking pip for its wheels from afar"; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
PYTHON="$base" make_venv "$scratch/venv"
"$PY" -m pip install -q --disable-pip-version-check "pip>=23.2" packaging pyyaml wheel setuptools
PYTHONPATH="$PWD" "$PY" scripts/gpu_pack.py "$@" --scratch "$scratch"
