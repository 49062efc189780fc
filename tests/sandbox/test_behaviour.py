"""What every backend does alike: commands, snapshots, files in and out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from selfplay.errors import PatchError, SandboxError
from selfplay.sandbox.base import Environment, Job, Quota, RunResult, Sandbox
from selfplay.types import FileChange

Run = Callable[..., RunResult]


def text(content: str, *, executable: bool = False) -> FileChange:
    return FileChange(content=content.encode(), executable=executable)


@pytest.mark.parametrize("code", [0, 1, 3, 125, 126, 127, 255])
def test_exit_codes(run: Run, code: int) -> None:
    result = run("sh", "-c", f"exit {code}")
    assert (result.exit_code, result.timed_out, result.output) == (code, False, b"")


def test_death_by_signal_is_128_plus_its_number(run: Run) -> None:
    assert run("sh", "-c", "kill -TERM $$").exit_code == 143


def test_a_missing_command_is_the_commands_fault(run: Run) -> None:
    result = run("no-such-command")
    assert result.exit_code == 127
    assert b"no-such-command" in result.output


def test_arguments_are_never_read_by_a_shell(run: Run) -> None:
    odd = ["a b", "$HOME", "'\"`;|&", "", "--", "-n", "ü\n"]
    program = "import sys; sys.stdout.buffer.write(ascii(sys.argv[1:]).encode())"
    result = run("python3", "-c", program, *odd, layer={"plain.txt": FileChange(content=None)})
    assert result.output.decode() == ascii(odd)


def test_output_and_errors_come_in_order(run: Run) -> None:
    script = "for i in $(seq 200); do echo o$i; echo e$i >&2; done"
    lines = run("sh", "-c", script).output.decode().split()
    assert lines == [f"{kind}{i}" for i in range(1, 201) for kind in "oe"]


def test_output_need_not_be_text(run: Run) -> None:
    result = run("printf", r"\377\000\303\050")
    assert result.output == b"\xff\x00\xc3\x28"


def test_standard_input(run: Run) -> None:
    content = bytes(range(256)) * 1000
    assert run("cat", stdin=content).output == content
    assert run("cat").output == b""


def test_input_that_nobody_reads(run: Run) -> None:
    result = run("sh", "-c", "exit 6", stdin=bytes(20_000_000))
    assert result.exit_code == 6


def test_variables_are_fixed_and_nothing_else_leaks(
    run: Run, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "leaked")
    said = run("env", variables={"MINE": "a b"}).output.decode()
    values = dict(line.split("=", 1) for line in said.splitlines())
    expected = {
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
        "PATH": environment.path,
        "MINE": "a b",
    }
    assert {name: values.get(name) for name in expected} == expected
    assert set(values) - set(expected) <= {"LANG", "PWD", "HOSTNAME", "SHLVL", "_"}
    assert values.get("HOSTNAME", "sandbox") == "sandbox"


def test_the_working_directory_is_the_tree(run: Run) -> None:
    result = run("sh", "-c", "pwd; ls; cat link package/sub/deep.txt")
    names = ["link", "package", "plain.txt", "with space; rm -rf"]
    assert result.output.decode().splitlines() == ["/testbed", *names, "plain", "deep"]


def test_layer_adds_modifies_and_deletes(run: Run) -> None:
    layer = {
        "package/module.py": text("VALUE = 'changed'\n"),
        "new/dir/added.sh": text("#!/bin/sh\necho added\n", executable=True),
        "with space; rm -rf": FileChange(content=None),
        "package/sub/deep.txt": FileChange(content=None),
        "not/there": FileChange(content=None),
    }
    script = "cat package/module.py; new/dir/added.sh; cat plain.txt; find . -type f | sort"
    lines = run("sh", "-c", script, layer=layer).output.decode().splitlines()
    assert lines[:3] == ["VALUE = 'changed'", "added", "plain"]
    assert lines[3:] == ["./new/dir/added.sh", "./package/module.py", "./plain.txt"]


def test_layer_turns_files_into_directories_and_back(run: Run) -> None:
    layer = {
        "plain.txt": FileChange(content=None),
        "plain.txt/inside": text("1"),
        "package": text("2"),
        "package/module.py": FileChange(content=None),
        "link": text("3"),
    }
    result = run("sh", "-c", "cat plain.txt/inside package link; test ! -L link", layer=layer)
    assert (result.exit_code, result.output) == (0, b"123")


def test_odd_names_in_layers_and_results(run: Run) -> None:
    odd = "-n a\n'b\" $(x)/*\tü"
    result = run("sh", "-c", 'cat ./*/*; printf c >"/out/$1"', "sh", odd.replace("/", "_"),
                 layer={odd: text("found"), "package": FileChange(content=None),
                        "with space; rm -rf": FileChange(content=None)})  # fmt: skip
    assert (result.exit_code, result.output) == (0, b"found")
    assert result.files == {odd.replace("/", "_"): b"c"}
    gone = run(
        "sh", "-c", "ls -A", layer={"-n a\n/b": text("x"), "plain.txt": FileChange(content=None)}
    )
    assert b"plain.txt" not in gone.output


def test_a_link_that_the_layer_replaces_leaves_its_target_alone(run: Run) -> None:
    result = run("cat", "link", "plain.txt", layer={"link": text("replaced\n")})
    assert result.output == b"replaced\nplain\n"


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a/../../b", ""])
@pytest.mark.parametrize("change", [text("x"), FileChange(content=None)])
def test_layer_cannot_leave_the_tree(run: Run, path: str, change: FileChange) -> None:
    with pytest.raises(PatchError, match="leaves"):
        run("true", layer={path: change})


def test_every_run_starts_afresh(run: Run) -> None:
    script = "ls /tmp /out; echo x >>plain.txt; rm -r package; echo y >/tmp/f; cat plain.txt"
    first, second = run("sh", "-c", script), run("sh", "-c", script)
    assert first.output == second.output == b"/out:\n\n/tmp:\nplain\nx\n"


def test_tree_files_can_be_edited_in_place(run: Run) -> None:
    script = "sed -i s/original/edited/ package/module.py && chmod +x plain.txt && mv link other"
    result = run("sh", "-c", f"{script} && mkdir -p package/x && cat package/module.py")
    assert (result.exit_code, result.output) == (0, b"VALUE = 'edited'\n")


def test_inputs_and_results(run: Run) -> None:
    script = "cat /in/a /in/b.bin >/out/joined; mkdir /out/sub; echo x >/out/sub/hidden"
    result = run("sh", "-c", script, inputs={"a": b"A\n", "b.bin": b"\x00\xff"})
    assert result.exit_code == 0
    assert result.files == {"joined": b"A\n\x00\xff"}


def test_inputs_cannot_be_written(run: Run) -> None:
    script = "echo x >/in/a; rm -f /in/a; touch /in/b; cat /in/a; ls /in"
    result = run("sh", "-c", script, inputs={"a": b"A\n"})
    assert result.output.endswith(b"A\na\n")


def test_at_most_64_files_come_back(run: Run) -> None:
    result = run("sh", "-c", "for i in $(seq 100); do echo $i >/out/$i; done")
    assert len(result.files) == 64


def test_too_large_results_stay_behind(run: Run) -> None:
    script = "head -c 2000000 /dev/zero >/out/big; echo small >/out/small"
    result = run("sh", "-c", script, quota=Quota(output=1_000_000))
    assert result.files == {"small": b"small\n"}


def test_links_and_special_files_in_out_are_not_followed(run: Run) -> None:
    script = (
        "ln -s /etc/shadow /out/shadow; ln -s /etc/hostname /out/hostname; "
        "ln -s /testbed /out/tree; mkfifo /out/pipe; ln -s real /out/relative; echo r >/out/real"
    )
    assert run("sh", "-c", script).files == {"real": b"r\n"}


def test_stale_byte_code_is_never_used(run: Run, environment: Environment) -> None:
    """An edit of equal size: byte code of the original lies beside it and must not be loaded."""
    edited = (
        (environment.tree / "package" / "module.py").read_text().replace("original", "inverted")
    )
    program = (
        "import os, py_compile, shutil, sys; sys.dont_write_bytecode = False;"
        "open('/tmp/module.py', 'w').write(\"VALUE = 'original'\\n\");"
        "shutil.copystat('plain.txt', '/tmp/module.py');"
        "py_compile.compile('/tmp/module.py', cfile='package/__pycache__/module.cpython-%d%d.pyc'"
        " % sys.version_info[:2]);"
        "from package import module; print(module.VALUE)"
    )
    result = run("python3", "-c", program, layer={"package/module.py": text(edited)})
    assert result.output == b"inverted\n"


def test_local_sockets_work(run: Run) -> None:
    program = (
        "import socket; s = socket.create_server(('localhost', 0));"
        "c = socket.create_connection(s.getsockname()); s.accept()[0].send(b'hi'); print(c.recv(9))"
    )
    result = run("python3", "-c", program)
    assert result.output == b"b'hi'\n"


def test_the_machine_finds_itself_by_its_name(run: Run) -> None:
    program = "import socket; print(socket.gethostbyname(socket.gethostname()))"
    result = run("python3", "-c", program)
    assert (result.exit_code, result.output.strip()) == (0, b"127.0.0.1"), result.output


def test_the_user_has_a_name_and_shared_memory_works(run: Run) -> None:
    program = (
        "import getpass, multiprocessing, pwd, os; print(pwd.getpwuid(os.getuid()).pw_name);"
        "multiprocessing.Queue().put(1); print(multiprocessing.Value('i', 3).value)"
    )
    assert run("python3", "-c", program).output == b"sandbox\n3\n"


def test_a_missing_tree_is_a_sandbox_error(sandbox: Sandbox, environment: Environment) -> None:
    broken = Environment(
        tree=Path("/no/such/tree"),
        mounts=environment.mounts,
        path=environment.path,
        digest="broken-tree",
    )
    with pytest.raises(SandboxError, match="no/such/tree"):
        sandbox.run(Job(environment=broken, argv=("true",)))


def test_a_bad_mount_is_a_sandbox_error(sandbox: Sandbox, environment: Environment) -> None:
    broken = Environment(
        tree=environment.tree,
        mounts={**environment.mounts, "/no/such/mount": "/opt/thing"},
        path=environment.path,
        digest="broken-mount",
    )
    with pytest.raises(SandboxError, match="no/such/mount"):
        sandbox.run(Job(environment=broken, argv=("true",)))
