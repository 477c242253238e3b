#!/bin/sh
# Build the wheel into dist/, install it as users would, and try it: in an empty environment, and beside the newest
# versions of what people use with LangChain. Local swarms run on the servers' environment of the checkout.
#
# Usage: scripts/check_wheel.sh                    needs .venv and .servers (make servers)
set -eu
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0
export LANGCHAIN_PETALS_DATA_DIR="${LANGCHAIN_PETALS_DATA_DIR:-$PWD/.servers}"

companions='langchain langgraph langchain-huggingface langchain-chroma sentence-transformers transformers numpy pandas'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$PWD
python=$work/venv/bin/python

quietly() { # run a command; show what it said only if it fails
    if ! "$@" </dev/null >"$work/log" 2>&1; then
        cat "$work/log" >&2
        echo "==> Failed: $*" >&2
        exit 1
    fi
}

make_empty() {
    rm -rf "$work/venv"
    quietly .venv/bin/python -m venv "$work/venv"
    quietly "$python" -m pip install --upgrade pip
}

echo "==> Building the wheel"
rm -rf dist
quietly .venv/bin/python -m pip wheel --no-deps --wheel-dir dist .
ls dist
quietly .venv/bin/python -m twine check --strict dist/*
quietly .venv/bin/check-wheel-contents dist

echo "==> Installing it into an empty environment"
make_empty
quietly "$python" -m pip install --constraint constraints.txt dist/*.whl
quietly "$python" -m pip check

mkdir "$work/elsewhere"
cd "$work/elsewhere"
echo "==> Importing it from another folder"
"$python" - "$root" <<'PY'
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
heavy = sorted({"torch", "transformers", "hivemind"} & set(sys.modules))
if heavy:
    sys.exit(f"importing langchain_petals loaded {', '.join(heavy)}")
brought = {each.metadata["Name"].lower() for each in importlib.metadata.distributions()}
unwanted = sorted({"accelerate", "peft", "petals", "transformers"} & brought)
if unwanted:
    sys.exit(f"langchain-petals brought {', '.join(unwanted)}")


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

echo "==> Checking the types of a program that uses it"
# the wheel's types, not those of the checkout: the program is checked from here, with that environment
cp "$root/scripts/typed_consumer.py" .
quietly "$root/.venv/bin/mypy" --strict --config-file= --python-executable "$python" typed_consumer.py

echo "==> Running langchain-petals --help and the demo there"
"$work/venv/bin/langchain-petals" --help >/dev/null
"$work/venv/bin/langchain-petals" demo </dev/null

cd "$root"
echo "==> Installing it beside $companions"
make_empty
# shellcheck disable=SC2086 # words of a list
quietly "$python" -m pip install --constraint constraints.txt torch $companions
"$python" -m pip freeze >"$work/before"
quietly "$python" -m pip install dist/*.whl
quietly "$python" -m pip check
"$python" -m pip freeze >"$work/after"
moved=$(grep --invert-match --line-regexp --fixed-strings --file="$work/after" "$work/before" || :)
if [ -n "$moved" ]; then
    printf '==> The wheel moved what was there before:\n%s\n' "$moved" >&2
    exit 1
fi
echo "$(wc -l <"$work/before") packages stayed, $(($(wc -l <"$work/after") - $(wc -l <"$work/before"))) came"

cd "$work/elsewhere"
echo "==> Talking to a local swarm there"
"$python" - <<'PY'
import langchain_chroma  # noqa: F401
import langchain_huggingface  # noqa: F401
import langgraph.graph
import pandas  # noqa: F401
import sentence_transformers  # noqa: F401
from langchain_core.messages import HumanMessage

from langchain_petals import ChatPetals
from langchain_petals.swarm import LocalSwarm

with LocalSwarm() as swarm:
    chat = ChatPetals(**swarm.connection, temperature=0)

    def answer(state: langgraph.graph.MessagesState) -> dict:
        return {"messages": [chat.invoke(state["messages"])]}

    graph = langgraph.graph.StateGraph(langgraph.graph.MessagesState)
    graph.add_node("answer", answer)
    graph.set_entry_point("answer")
    text = graph.compile().invoke({"messages": [HumanMessage("Who are you?")]})["messages"][-1].text
print(f"The model answers {text!r}")
if not text.strip():
    raise SystemExit("it answered nothing")
PY
echo "==> The wheel works"
