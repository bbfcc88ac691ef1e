"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from retinue.cli.info import settings_page

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ALL_PYTHON = SOURCES + sorted((ROOT / "tests").rglob("*.py"))

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "misc"}


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring and its decorators."""
    first = function.lineno
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    documented = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (function.end_lineno or first) - first + 1 - documented


LISTS = {"src/retinue/core/messages.py"}
"""Files that are one list, which a reader looks things up in: splitting them would hide things."""


@pytest.mark.parametrize("file", [file for file in ALL_PYTHON if shown(file) not in LISTS], ids=shown)
def test_files_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("file", SOURCES, ids=shown)
def test_functions_are_short(file: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [f.name for f in functions if lines_of_code(f) > MAX_FUNCTION_LINES] == []


def test_modules_are_named_by_what_they_do() -> None:
    assert [shown(file) for file in ALL_PYTHON if EMPTY_NAMES & set(file.with_suffix("").parts)] == []


@pytest.mark.parametrize("file", ALL_PYTHON, ids=shown)
def test_nothing_is_left_to_be_done(file: Path) -> None:
    left = re.findall(r"#.*\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b", file.read_text(encoding="utf-8"))
    assert left == []


def test_the_page_of_settings_is_up_to_date() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run: ./run.sh retinue settings --markdown > docs/settings.md"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-lab.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_and_name_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=sha256:)", text, re.MULTILINE)
    entries = re.split(r"\n(?=[a-z0-9])", text[text.index("\n\n") if "\n\n" in text else 0 :])
    pinned = [entry for entry in entries if "==" in entry]
    assert pinned
    assert all("--hash=sha256:" in entry for entry in pinned)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lists = {"": project["dependencies"], "-lab": extras["lab"], "-dev": [*extras["dev"], *extras["lab"]]}
    for suffix, wanted in lists.items():
        name = f"requirements{suffix}.txt"
        pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        assert {re.split(r"[=<>]", requirement)[0] for requirement in wanted} <= pinned
