#!/bin/sh
# Build the wheel into dist/, install it into an empty environment as a user would, and try it there.
#
# Usage: scripts/check_wheel.sh                    needs .venv (make venv)
set -eu
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$PWD
bin=$work/venv/bin

quietly() { # run a command; show what it said only if it fails
    if ! "$@" </dev/null >"$work/log" 2>&1; then
        cat "$work/log" >&2
        echo "==> Failed: $*" >&2
        exit 1
    fi
}

echo "==> Building the wheel"
rm -rf dist
quietly .venv/bin/python -m pip wheel --no-deps --wheel-dir dist .
ls dist

echo "==> Installing it, what it needs and petals into an empty environment"
quietly .venv/bin/python -m venv "$work/venv"
quietly "$bin/python" -m pip install --upgrade pip
quietly "$bin/python" -m pip install --constraint constraints.txt dist/*.whl
quietly "$bin/python" -m pip install --constraint constraints.txt --no-deps petals

mkdir "$work/elsewhere"
cd "$work/elsewhere"
echo "==> Importing it from another folder"
"$bin/python" - "$root" <<'PY'
import importlib.metadata
import pathlib
import sys

import langchain_petals

source = pathlib.Path(sys.argv[1], "langchain_petals")
installed = pathlib.Path(langchain_petals.__file__).parent
if not installed.is_relative_to(sys.prefix):
    sys.exit(f"imported from {installed}, not from the wheel")
if langchain_petals.__version__ != importlib.metadata.version("langchain-petals"):
    sys.exit(f"__version__ is {langchain_petals.__version__}, the wheel's another")
heavy = sorted({"torch", "transformers", "hivemind", "petals"} & set(sys.modules))
if heavy:
    sys.exit(f"importing langchain_petals loaded {', '.join(heavy)}")


def files(folder: pathlib.Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


if files(source) != files(installed):
    sys.exit(f"files that are in one of source and wheel only: {sorted(files(source) ^ files(installed))}")
print(f"langchain_petals {langchain_petals.__version__}, {len(files(installed))} files, nothing heavy loaded")
PY

echo "==> Running langchain-petals --help and the demo there"
"$bin/langchain-petals" --help >/dev/null
"$bin/langchain-petals" demo </dev/null
echo "==> The wheel works"
