"""Limits on the size of functions, parameter lists, files and lines, and on repeated blocks."""

import ast
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8
MAX_FILE_LINES = 350
MAX_COLUMNS = 100
BLOCK_LINES = 8

# Public formulas, whose parameters are contracts (see the documentation of the Python API).
FORMULAS = {"evaluate_features", "identification_scores", "rank_metrics", "verification_scores"}


def tracked_files(*patterns: str) -> list[Path]:
    """Files below the root, without those that git ignores; all files where there is no git."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("the limits are checked in a git checkout")
    paths = (ROOT / name for name in listed.stdout.splitlines())
    return sorted(path for path in paths if path.is_file())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def num_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return function.end_lineno - function.lineno + 1


def num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters that a caller can pass: `self` and `cls` do not count."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len([argument for argument in named if argument.arg not in ("self", "cls")])


def header_lines(source: str) -> set[int]:
    """Lines of imports, and of function definitions up to their colon."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines.update(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines.update(range(node.lineno, node.body[0].lineno))
    return lines


def blocks(source: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line number, text) of every run of BLOCK_LINES non-blank lines without `header_lines`."""
    headers = header_lines(source)
    lines = [
        (number, line.strip())
        for number, line in enumerate(source.splitlines(), start=1)
        if line.strip() and number not in headers
    ]
    for start in range(len(lines) - BLOCK_LINES + 1):
        window = lines[start : start + BLOCK_LINES]
        yield window[0][0], tuple(text for _, text in window)


def test_the_checks_detect_violations():
    source = "def f(self, a, b, *, c):\n    x = 1\n    return x\n"
    (function,) = functions(source)
    assert (num_lines(function), num_parameters(function)) == (3, 3)
    body = "\n".join(f"x{n} = {n}" for n in range(9))
    assert [line for line, _ in blocks(f"import os\n\n{body}\n")] == [3, 4]
    signature = "def f(\n" + "".join(f"    x{n},\n" for n in range(9)) + "):\n    pass\n"
    assert list(blocks(signature)) == []


def test_functions_are_short_and_take_few_parameters():
    wrong = []
    for path in tracked_files("*.py"):
        for function in functions(path.read_text(encoding="utf-8")):
            where = f"{name_of(path)}:{function.lineno} {function.name}"
            if num_lines(function) > MAX_FUNCTION_LINES:
                wrong.append(f"{where}: {num_lines(function)} lines")
            if num_parameters(function) > MAX_PARAMETERS and function.name not in FORMULAS:
                wrong.append(f"{where}: {num_parameters(function)} parameters")
    assert wrong == []


def test_files_are_short():
    sizes = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in tracked_files("*.py", "*.pyx", "*.h")
    }
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_lines_have_at_most_100_columns():
    wrong = []
    for path in tracked_files("*.py", "*.pyx", "*.pxi", "*.h", "*.md", "*.yml"):
        is_prose = path.suffix == ".md"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            # Tables and links in Markdown cannot be wrapped.
            if len(line) > MAX_COLUMNS and not (is_prose and ("|" in line or "](" in line)):
                wrong.append(f"{name_of(path)}:{number}: {len(line)} columns")
    assert wrong == []


def test_no_block_is_written_twice():
    places = defaultdict(list)
    for path in tracked_files("*.py"):
        for line, block in blocks(path.read_text(encoding="utf-8")):
            places[block].append(f"{name_of(path)}:{line}")
    assert [found for found in places.values() if len(found) > 1] == []
