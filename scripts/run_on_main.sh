#!/bin/sh
# Run what depends on the version of the servers with those of git main, 2.3.0.dev2: exactness, beam search, families,
# conversations, drafts, failures and tools. Then try a chain of a released server and one of git main.
#
# Usage: scripts/run_on_main.sh FOLDER             FOLDER is a checkout of bigscience-workshop/petals
#
# BIN=/path/to/bin chooses the client's environment; the default is .venv/bin, which `make servers` makes together with
# the released servers' environment. That of git main is made here, in .tools.
# RELEASED_PYTHON=/path/to/python chooses the released servers' interpreter.
set -eu

usage() {
    echo "Usage: $0 FOLDER, a checkout of bigscience-workshop/petals" >&2
    exit 2
}
absolute() { # a path, not resolved: a virtual environment's interpreter is a link
    case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$PWD/$1" ;;
    esac
}

[ $# -eq 1 ] && [ -d "$1/src/petals" ] || usage
petals=$(absolute "$1")
bin=${BIN:+$(absolute "$BIN")}
released=${RELEASED_PYTHON:+$(absolute "$RELEASED_PYTHON")}

cd "$(dirname "$0")/.."
bin=${bin:-$PWD/.venv/bin}
released=${released:-$PWD/.servers/servers/bin/python}
unset PYTHONHOME LANGCHAIN_PETALS_SERVER_PYTHON
export PYTHONPATH="$PWD"

main=$PWD/.tools/petals-main

echo "==> Making the environment of git main's servers"
LANGCHAIN_PETALS_DATA_DIR=$main "$bin/python" -c 'from langchain_petals.cli import app; app()' \
    server install --petals "$petals"

echo "==> Trying a chain of servers of both versions"
"$bin/python" scripts/chain_of_both.py "$released" "$main/servers/bin/python"

echo "==> Running the integration tests on servers of git main"
tests=
for name in exactness beam_search families conversations drafts failures tools; do
    tests="$tests tests/integration_tests/test_$name.py"
done
# servers of git main cannot run Falcon-RW's blocks
# shellcheck disable=SC2086 # names without spaces
LANGCHAIN_PETALS_DATA_DIR=$main "$bin/python" -m pytest -k 'not falcon-rw' $tests
