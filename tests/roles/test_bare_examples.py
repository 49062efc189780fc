"""Repairs without tests: the prompt shows broken code, the answer puts the original back."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from selfplay.errors import UserError
from selfplay.scripted.compact import ByteTokenizer
from selfplay.warmstart.bare_examples import bare_examples, code_source
from selfplay.warmstart.examples import SupervisedExample

TOKENIZER = ByteTokenizer()
ASKED = r"\n\nFix the bug( in line \d+(, \d+)*( or \d+)?)?\s*$"


def take(directory: Path, num: int, seed: int = 0) -> list[tuple[str, SupervisedExample]]:
    source = code_source(str(directory))
    found = bare_examples([source], TOKENIZER, seed, max_prompt_tokens=2000)
    return list(itertools.islice(found, num))


def test_a_function_of_endless_lines_is_left_out(tmp_path: Path) -> None:
    """A generated polynomial has thousands of mutations, each of which parses all of it again."""
    terms = " + ".join(f"{n}*p**{n % 7}*q**{n % 5}" for n in range(2000))
    code = f"def long(p, q):\n    value = {terms}\n    return value\n"
    for number in range(9):
        code += f"def short_{number}(p, q):\n    value = p + q\n    return value * {number}\n"
    (tmp_path / "code.py").write_text(code)
    names = {name.partition("::")[2] for name, _ in take(tmp_path, 9)}
    assert names and names <= {f"short_{number}" for number in range(9)}


def test_answers_put_lines_of_the_original_back() -> None:
    directory = code_source("selfplay").directory
    examples = take(directory, 200)
    assert len(examples) == 200
    told = right = 0
    for name, example in examples:
        path = Path(name.split("::")[0])
        original = {line.strip() for line in path.read_text().splitlines()}
        prompt = TOKENIZER.user_text(example.prompt_ids)
        listed = dict(re.findall(r"^(\d+)\| ?(.*)$", prompt, re.M))
        named = re.findall(r"\d+", prompt[prompt.index("Fix the bug") :])
        told += bool(named)
        right += bool(set(named) & set(re.findall(r"^\d+", example.answer, re.M)))
        assert len(named) == len(set(named)) <= 5 and set(named) <= set(listed)
        assert "1" not in named, "the head of a function"
        assert "Failing tests" not in prompt and re.search(ASKED, prompt)
        operations = re.findall(r"^(\d+)(?:([|+]) ?(.*)|-(\d*))$", example.answer, re.M)
        assert operations and len(operations) == len(example.answer.split("\n"))
        replaced = [number for number, sign, _, _ in operations if sign == "|"]
        for number, sign, text, _ in operations:
            assert number in listed
            assert not sign or text.strip() in original
            assert sign != "|" or replaced.count(number) > 1 or text != listed[number]
        assert sum(example.loss_mask) == len(example.answer_ids)
        assert example.answer_ids[-1] == TOKENIZER.end_of_turn_id
    assert 0.7 * len(examples) < told < len(examples) and 0.8 * told < right < told


def test_reproducible_and_different_for_another_seed(tmp_path: Path) -> None:
    functions = [f"def f{n}(a, b):\n    return a + b * {n}\n" for n in range(20)]
    (tmp_path / "code.py").write_text("\n".join(functions))
    assert take(tmp_path, 20) == take(tmp_path, 20)
    assert take(tmp_path, 20) != take(tmp_path, 20, seed=1)


def test_test_files_and_what_is_no_python_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    body = "def f(a):\n    return a + 1\n"
    (tmp_path / "tests" / "test_f.py").write_text(body)
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe" + body.encode())
    (tmp_path / "broken.py").write_text("def f(:\n")
    assert take(tmp_path, 5) == []
    (tmp_path / "f.py").write_text(body)
    assert [name for name, _ in take(tmp_path, 5)] == [f"{tmp_path}/f.py::f"]


def test_sources_are_the_library_packages_and_directories() -> None:
    assert (code_source("stdlib").directory / "json").is_dir()
    package = code_source("jinja2")
    assert package.version and (package.directory / "environment.py").is_file()
    for name in ("no_such_package", "/no/such/directory", "ast"):
        with pytest.raises(UserError, match=re.escape(name)):
            code_source(name)
