"""Files that survive a kill: atomic replacement, synced appends, torn last lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.errors import InfrastructureError, UserError
from selfplay.files import (
    append_json_lines,
    encode_json,
    finite,
    held_lock,
    read_json_lines,
    repair_json_lines,
    take_lock,
    write_atomic,
)

DOCUMENTS = st.dictionaries(
    st.text(max_size=8),
    st.one_of(st.integers(), st.text(), st.booleans(), st.none(), st.floats(allow_nan=False)),
    max_size=4,
)


def test_write_atomic_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, b"one")
    write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_write_atomic_into_a_missing_directory_is_an_infrastructure_error(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="absent"):
        write_atomic(tmp_path / "absent" / "a.txt", b"one")


@given(documents=st.lists(DOCUMENTS, min_size=1, max_size=4), cut=st.integers(0, 300))
def test_a_cut_file_loses_at_most_its_last_line(
    tmp_path_factory: pytest.TempPathFactory, documents: list[dict[str, object]], cut: int
) -> None:
    """Cut anywhere inside the last line: all earlier lines stay, the piece is kept apart."""
    folder = tmp_path_factory.mktemp("cut")
    file, torn = folder / "lines.jsonl", folder / "logs" / "torn"
    append_json_lines(file, documents)
    data = file.read_bytes()
    last = len(encode_json(documents[-1])) + 1
    removed = cut % last
    file.write_bytes(data[: len(data) - removed])
    moved = repair_json_lines(file, torn)
    expected = documents if removed <= 1 else documents[:-1]
    assert [document for _, document in read_json_lines(file)] == [finite(d) for d in expected]
    assert file.read_bytes() == data[: len(data) - (last if removed > 1 else 0)]
    assert moved == (removed > 1)
    if moved:
        assert torn.read_bytes() == data[len(data) - last : len(data) - removed] + b"\n"


def test_repair_of_missing_and_clean_files_does_nothing(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    assert not repair_json_lines(file, tmp_path / "torn")
    append_json_lines(file, [{"a": 1}])
    assert not repair_json_lines(file, tmp_path / "torn")
    assert not (tmp_path / "torn").exists()


def test_a_torn_line_longer_than_a_read_piece(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    append_json_lines(file, [{"a": 1}])
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"b": "' + b"x" * 200_000)
    assert repair_json_lines(file, tmp_path / "torn")
    assert file.read_bytes() == whole
    assert (tmp_path / "torn").stat().st_size == 200_008


def test_a_broken_line_in_the_middle_is_named_and_never_removed(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'{"a": 1}\nnot json\n{"a": 2}\n')
    assert not repair_json_lines(file, tmp_path / "torn")
    with pytest.raises(UserError, match=r"lines\.jsonl:2"):
        list(read_json_lines(file))
    assert file.read_bytes().count(b"\n") == 3


def test_numbers_that_are_not_finite_become_null() -> None:
    line = encode_json({"a": [1.0, float("nan")], "b": {"c": float("-inf")}})
    assert json.loads(line) == {"a": [1.0, None], "b": {"c": None}}


def test_lone_surrogates_survive() -> None:
    text = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert json.loads(encode_json({"a": text})) == {"a": text}


def test_an_append_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    """A bound on the file's size cuts the third line in the middle: two whole lines stay."""
    file = tmp_path / "lines.jsonl"
    program = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from selfplay.errors import InfrastructureError\n"
        "from selfplay.files import append_json_lines\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n    for i in range(3): append_json_lines(Path(sys.argv[1]), [{'pad': 'x' * 4000}])\n"
        "except InfrastructureError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "lines.jsonl: cannot be written (File too large)" in done.stdout
    assert file.stat().st_size == 2 * len(encode_json({"pad": "x" * 4000}) + b"\n")
    assert not repair_json_lines(file, tmp_path / "torn")


def test_kill_during_appends_leaves_whole_lines(tmp_path: Path) -> None:
    """A process killed while it appends: every line that was reported is there."""
    file = tmp_path / "lines.jsonl"
    program = (
        "import sys\nfrom pathlib import Path\nfrom selfplay.files import append_json_lines\n"
        "i = 0\nwhile True:\n"
        "    append_json_lines(Path(sys.argv[1]), [{'i': i, 'pad': 'x' * 5000}])\n"
        "    print(i, flush=True)\n    i += 1\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    reported = [child.stdout.readline() for _ in range(20)]
    child.send_signal(signal.SIGKILL)
    reported += child.stdout.readlines()
    child.wait()
    repair_json_lines(file, tmp_path / "torn")
    numbers = [line["i"] for _, line in read_json_lines(file)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= len([line for line in reported if line.endswith(b"\n")]) >= 20


def test_a_lock_is_held_for_the_length_of_its_block(tmp_path: Path) -> None:
    """And given back when the block raises, not only when the process ends."""
    file = tmp_path / "new" / ".lock"
    with pytest.raises(KeyError), held_lock(file, "out=new"):
        with (
            pytest.raises(UserError, match="out=new: in use by process"),
            held_lock(file, "out=new"),
        ):
            pass
        raise KeyError
    with held_lock(file, "out=new"):
        pass
    with pytest.raises(UserError, match="cannot be written"), held_lock(file / "x", "out=x"):
        pass


def test_a_lock_outlives_its_owner_by_what_that_had_forked(tmp_path: Path) -> None:
    """A run was killed while it forked: the next one was told that the dead one uses the folder."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from selfplay.files import take_lock\n"
        "take_lock(Path(sys.argv[1]), 'a run')\n"
        "if os.fork() == 0:\n"
        "    os.close(1)\n"
        "    time.sleep(float(sys.argv[2]))\n"
        "os._exit(0)\n"
    )
    file = tmp_path / ".lock"
    argv = [sys.executable, "-c", program, str(file)]
    subprocess.run([*argv, "1"], check=True, stdout=subprocess.PIPE)
    os.close(take_lock(file, "a run"))
    living = os.fork()
    if living == 0:
        take_lock(file, "a run")
        time.sleep(60)
        os._exit(0)
    try:
        while file.read_text() != f"{living}\n":
            time.sleep(0.01)
        began = time.monotonic()
        with pytest.raises(UserError, match=f"in use by process {living}"):
            take_lock(file, "a run")
        assert time.monotonic() - began < 4, "who lives is not waited for"
    finally:
        os.kill(living, signal.SIGKILL)
        os.waitpid(living, 0)
