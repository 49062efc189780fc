"""Tools in a real session: what they do, and the answers to what cannot be done."""

from __future__ import annotations

import json

import pytest

from selfplay.agent.tools import TOOLS, BadArguments, ToolBox
from selfplay.chat import ToolCall
from selfplay.sandbox.session.session import Session


@pytest.fixture
def tools(session: Session) -> ToolBox:
    return ToolBox(session=session, max_output=300)


def do(tools: ToolBox, name: str, **arguments: object) -> str:
    return tools.perform(ToolCall(name=name, arguments=arguments), timeout_s=60)


def test_specs_are_json_schemas() -> None:
    assert [tool.name for tool in TOOLS] == ["bash", "edit", "create", "submit"]
    for tool in TOOLS:
        schema = json.loads(json.dumps(dict(tool.parameters)))
        assert schema["type"] == "object" and set(schema["required"]) == set(schema["properties"])


def test_bash(tools: ToolBox) -> None:
    assert do(tools, "bash", command="echo hi; false") == "hi\n[exit code 1]"
    assert do(tools, "bash", command="true") == "[exit code 0]"
    assert "bytes left out" in do(tools, "bash", command="seq 9999")
    assert do(tools, "bash", command=r"printf '\377\000'") == "\ufffd\ufffd\n[exit code 0]"


def test_a_command_out_of_time(tools: ToolBox) -> None:
    call = ToolCall(name="bash", arguments={"command": "echo begun; sleep 60"})
    said = tools.perform(call, timeout_s=0.5)
    assert said.startswith("begun\n[stopped after 1 s") and "as it left them" in said


def test_edit_needs_exactly_one_place(tools: ToolBox, session: Session) -> None:
    path = "shop.py"
    assert "2 times (lines 2, 3)" in do(tools, "edit", path=path, search="y = x", replace="y = 2")
    missing = do(tools, "edit", path=path, search="return y  \n", replace="")
    assert "does not occur; its first line stands at 4" in missing
    assert "does not occur. Look" in do(tools, "edit", path=path, search="nothing", replace="")
    assert "empty" in do(tools, "edit", path=path, search="", replace="x")
    assert "the same" in do(tools, "edit", path=path, search="return", replace="return")
    assert session.read_changes().layer == {}
    done = do(tools, "edit", path="/testbed/shop.py", search="return y\n", replace="return -y\n")
    assert done == "/testbed/shop.py: replaced at line 4."
    assert session.read(path).endswith(b"return -y\n")


def test_edit_knows_other_line_ends(tools: ToolBox, session: Session) -> None:
    do(tools, "edit", path="dos.txt", search="one\ntwo\n", replace="1\n2\n")
    do(tools, "edit", path="dos.txt", search="three\n", replace="3\n")
    assert session.read("dos.txt") == b"1\r\n2\r\n3"


def test_files_that_cannot_be_edited(tools: ToolBox) -> None:
    assert do(tools, "edit", path="no.py", search="a", replace="b") == "no.py: no such file."
    assert "a directory" in do(tools, "edit", path="/tmp", search="a", replace="b")
    assert "a directory" in do(tools, "create", path=".", content="").lower()


def test_create(tools: ToolBox, session: Session) -> None:
    assert do(tools, "create", path="a/b.txt", content="é\n") == "a/b.txt: written."
    assert do(tools, "create", path="a/b.txt", content="") == "a/b.txt: overwritten."
    assert session.read("a/b.txt") == b""


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("Bash", {"command": "ls"}, "tools are: bash, edit, create, submit"),
        ("bash", {}, "missing: command"),
        ("bash", {"command": "echo \ud83d"}, "half a character"),
        ("create", {"path": "a", "content": "\udc80"}, "half a character"),
        ("bash", {"\ud83d": "ls"}, "half a character"),
        ("bash", {"cmd": "ls"}, "unknown: cmd"),
        ("bash", {"command": ["ls"]}, "must be text, not list"),
        ("bash", {"command": "a\0b"}, "zero byte"),
        ("create", {"path": " ", "content": ""}, "path is empty"),
        ("submit", {"patch": "x"}, "submit takes no arguments"),
    ],
)
def test_bad_arguments_are_explained(
    tools: ToolBox, name: str, arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(BadArguments, match=says):
        do(tools, name, **arguments)
