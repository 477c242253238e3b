"""The code blocks of README.md, docs/ and docstrings, and how each of them is run.

Each block is run alone, as by a reader who pastes it into a new file. A `text` block right after it is what it prints.
A block that cannot be run has a comment right before it, which says why:
`<!-- not run: it needs the public swarm -->`. The pages in docs/langchain/ are not here: each of them is one program,
which runs as a notebook.

    python tests/integration_tests/page_examples.py [PAGE ...]

runs the blocks literally: each in a new folder and by a new interpreter, with a swarm of its own. That takes some
minutes. The tests run them in one process, which is faster.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_petals.swarm import servers_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "langchain_petals"

# not a parser of Markdown: to one, what is indented under a heading of a docstring is a block of another kind
_FENCED = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<code>.*?)^ *(?P=fence) *$", re.DOTALL | re.MULTILINE
)
_NOT_RUN = re.compile(r"<!-- not run[^:]*: ((?:(?!-->).)+?) -->\s*\Z", re.DOTALL)
_COMMAND = re.compile(r"^\$ (.*(?:\n> .*)*)\n?((?:(?!\$ ).*\n?)*)", re.MULTILINE)
_CHECKER = doctest.OutputChecker()


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        path: The file that it is in.
        line: The line of its first fence, from 1.
        language: What stands behind the fence.
        code: Its text.
        output: What it prints by the `text` block right after it; None if there is none.
        reason: Why it is not run; None if it is.
    """

    path: Path
    line: int
    language: str
    code: str
    output: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Return the pages whose blocks are run."""
    return [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted(path for folder in (ROOT / "docs", ROOT / "examples") for path in folder.rglob("*.md")),
    ]


def blocks_of_page(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    return list(_blocks(page, page.read_text(encoding="utf-8")))


def blocks_of_docstrings(module: Path) -> list[Block]:
    """Return the blocks of a module's docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found: list[Block] = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        text = ast.get_docstring(node) if isinstance(node, documented) else None
        if text is not None:
            found += _blocks(module, text, node.body[0].lineno - 1)  # type: ignore[attr-defined]
    return found


def _blocks(path: Path, text: str, lines_before: int = 0) -> Iterator[Block]:
    found = list(_FENCED.finditer(text))
    ends = [0, *(match.end() for match in found)]
    between = [text[end : match.start()] for end, match in zip(ends, found, strict=False)]
    outputs = [
        _dedented(match) if match["info"] == "text" and index and not between[index].strip() else None
        for index, match in enumerate(found)
    ]
    for index, match in enumerate(found):
        if outputs[index] is not None and found[index - 1]["info"] != "text":
            continue  # it belongs to the block before it
        reason = _NOT_RUN.search(between[index])
        yield Block(
            path,
            lines_before + text.count("\n", 0, match.start()) + 1,
            match["info"].split(" ")[0],
            _dedented(match),
            outputs[index + 1] if index + 1 < len(found) and match["info"] != "text" else None,
            reason[1] if reason else None,
        )


def _dedented(match: re.Match[str]) -> str:
    return "".join(line.removeprefix(match["indent"]) for line in match["code"].splitlines(keepends=True))


def run_python_here(block: Block, folder: Path) -> None:
    """Run a block as the main program of this process."""
    program = folder / "example.py"
    program.write_text(block.code, encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(program), run_name="__main__")
    _compare(block, printed.getvalue())


def run_python_alone(block: Block, folder: Path) -> None:
    """Run a block by a new interpreter."""
    program = folder / "example.py"
    program.write_text(block.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{block} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    _compare(block, done.stdout)


def run_shell(block: Block, folder: Path) -> None:
    """Run a block of commands, all of which have to succeed."""
    printed, code = _shell(block.code, folder)
    assert code == 0, f"{block} ended with {code}:\n{printed}"
    _compare(block, printed)


def run_console(block: Block, folder: Path) -> None:
    """Run the commands after `$`. What one prints is compared if the block shows it, else it has to succeed."""
    commands = [(command.replace("\n> ", "\n"), shown) for command, shown in _COMMAND.findall(block.code)]
    assert commands, f"{block} has no line that begins with '$ '"
    for command, shown in commands:
        printed, code = _shell(command, folder)
        if shown.strip():
            _check(shown, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, f"{block}: {command}")
        else:
            assert code == 0, f"{block}: {command} ended with {code}:\n{printed}"


def run_json(block: Block, _: Path) -> None:
    """Parse a block that is a JSON document, or one in each line."""
    try:
        json.loads(block.code)
    except ValueError:
        for line in block.code.splitlines():
            json.loads(line)


RUNNERS: dict[str, Callable[[Block, Path], None]] = {
    "python": run_python_here,
    "sh": run_shell,
    "console": run_console,
    "json": run_json,
}


def _compare(block: Block, printed: str) -> None:
    if block.output is not None:
        _check(block.output, printed, doctest.ELLIPSIS, str(block))


def _check(shown: str, printed: str, flags: int, where: str) -> None:
    shown, printed = ("".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines()) for text in (shown, printed))
    assert _CHECKER.check_output(shown, printed, flags), f"{where} shows\n{shown}\nand printed\n{printed}"


def _shell(commands: str, folder: Path) -> tuple[str, int]:
    done = subprocess.run(
        ["bash", "-c", f"set -e\n{commands}"],
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    return done.stdout, done.returncode


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a reader who has installed the package and its servers, and who cannot change these."""
    home = folder / ".home"
    command = home / "bin" / "langchain-petals"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m langchain_petals "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return os.environ | {
        "HOME": str(home),
        "LANGCHAIN_PETALS_DATA_DIR": str(home),
        "LANGCHAIN_PETALS_SERVER_PYTHON": str(servers_python()),
        "PATH": os.pathsep.join([str(command.parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }


def main(names: list[str]) -> int:
    """Run the blocks of these pages, or of all pages and docstrings, literally; return how many failed."""
    found = [block for page in pages() for block in blocks_of_page(page)]
    found += [block for module in sorted(PACKAGE.rglob("*.py")) for block in blocks_of_docstrings(module)]
    runners = RUNNERS | {"python": run_python_alone}
    failed = 0
    for block in found:
        if block.reason is not None or (names and not any(str(block).startswith(name) for name in names)):
            continue
        began, outcome = time.monotonic(), "ok"
        with tempfile.TemporaryDirectory() as folder:
            try:
                runners[block.language](block, Path(folder))
            except (AssertionError, KeyError, ValueError) as error:
                failed, outcome = failed + 1, f"failed: {type(error).__name__} {error}"
        print(f"{time.monotonic() - began:5.1f} s  {block}  {outcome}", flush=True)  # noqa: T201
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
