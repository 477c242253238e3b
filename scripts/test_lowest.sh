#!/bin/sh
# Run unit tests with the lowest versions that the package's metadata allows, in an environment that is made for it.
#
# Usage: scripts/test_lowest.sh [TEST ...]         needs .venv, .tools/bin/uv and the servers' environment (make lowest)
#
# LANGCHAIN_PETALS_DATA_DIR names the folder of the servers' environment; the default is .servers.
# torch keeps the version of constraints.txt, since a build of the lowest one without CUDA may not lie on disk.
set -eu
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0 UV_PYTHON_DOWNLOADS=never
export LANGCHAIN_PETALS_DATA_DIR="${LANGCHAIN_PETALS_DATA_DIR:-$PWD/.servers}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
bin=$work/venv/bin

quietly() { # run a command; show what it said only if it fails
    if ! "$@" </dev/null >"$work/log" 2>&1; then
        cat "$work/log" >&2
        echo "==> Failed: $*" >&2
        exit 1
    fi
}

echo "==> Resolving for the lowest versions"
version=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# the transformers that fits the lowest tokenizers; the tests compare with it
echo 'transformers>=4.45' >"$work/transformers.in"
quietly .tools/bin/uv pip compile --no-config --no-header --annotation-style line --resolution lowest-direct \
    --python-version "$version" --output-file "$work/resolved.txt" pyproject.toml "$work/transformers.in"
# only what the package and the line above name is lowest; the tests' tools are the newest that fit
grep -e 'pyproject\.toml' -e 'transformers\.in' "$work/resolved.txt" | sed 's/ *#.*//' | grep -v '^torch==' >"$work/lowest.txt"
tr '\n' ' ' <"$work/lowest.txt" && echo

echo "==> Installing them into an empty environment"
quietly .venv/bin/python -m venv "$work/venv"
quietly "$bin/python" -m pip install --upgrade pip
quietly "$bin/python" -m pip install --constraint "$work/lowest.txt" --constraint constraints.txt --editable . --group test

echo "==> Running unit tests with them"
# Not run: tests of the scripts that train the bundled model; tests over models of Qwen 3, which that transformers does
# not know; tests of beam search and of filters, which transformers before 4.49 does otherwise in some cases; two that
# compare spaces at the ends of long lines, where rich before 14.3 drops one; one of a docstring that older pydantic
# leaves out; and the fuzzer of grammars, which takes long. Old packages warn of what newer ones beside them deprecated.
# Properties are tried with few examples: `make test` tries more.
HYPOTHESIS_PROFILE=brief \
"$bin/python" -m pytest --numprocesses 2 --disable-socket --allow-unix-socket --record-mode=none -p no:cacheprovider \
    -W default::DeprecationWarning -W default::FutureWarning --ignore tests/unit_tests/tiny_model \
    --ignore tests/unit_tests/engine/decoding/test_beam_search.py \
    --ignore tests/unit_tests/engine/decoding/test_logit_filters.py \
    --ignore tests/unit_tests/engine/constraints/test_fuzz.py \
    -k 'not qwen3 and not neither_wrapped_nor_coloured and not installing_shows_its_steps and not test_dataclass_is_a_tool' "${@:-tests/unit_tests}"
