#!/bin/sh
# Run the tests that need no torch on the newest Python found here, with the newest version of everything else. torch is
# left out since a build without CUDA may not lie on disk for that Python.
#
# Usage: scripts/test_newest_python.sh             NEWEST=/path/to/python chooses the interpreter
set -eu
cd "$(dirname "$0")/.."
unset PYTHONHOME
export PYTHONPATH="$PWD" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

# Tests that no torch, model or swarm is needed for. One that imports torch fails here: then take its folder or file out.
tests='chat/templates chat/test_foreign_blocks.py chat/test_messages.py chat/test_reasoning.py chat/test_response.py
chat/test_token_history.py chat/tools/test_schema.py configuration/test_options.py engine/test_generation.py
engine/test_scheduler.py engine/test_shared_values.py hub schemas/test_object_schema.py swarm/test_interpreter.py
test_chat_standard.py test_errors.py test_json_scanner.py test_metadata.py test_progress.py
tiny_model/test_training_data.py'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

quietly() { # run a command; show what it said only if it fails
    if ! "$@" </dev/null >"$work/log" 2>&1; then
        cat "$work/log" >&2
        echo "==> Failed: $*" >&2
        exit 1
    fi
}

find_newest() { # also among pyenv's, whose commands run only where they are switched on
    for minor in 14 13 12 11 10; do
        for command in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python; do
            if "$command" -c 'import ensurepip, venv' </dev/null >/dev/null 2>&1; then
                echo "$command"
                return
            fi
        done
    done
}

newest=${NEWEST:-$(find_newest)}
echo "==> Running the tests that need no torch on $("$newest" --version) ($newest)"
quietly "$newest" -m venv "$work/venv"
quietly "$work/venv/bin/python" -m pip install --upgrade 'pip>=25.1'
.venv/bin/python -c 'from importlib.metadata import requires
print(*(each for each in requires("langchain-petals") if not each.startswith(("torch", "hivemind"))), sep="\n")' \
    >"$work/requirements.txt" # hivemind needs torch
quietly "$work/venv/bin/python" -m pip install --requirement "$work/requirements.txt" --group test

# shellcheck disable=SC2086 # words of a list
"$work/venv/bin/python" -m pytest --numprocesses 2 --disable-socket --allow-unix-socket --record-mode=none \
    -p no:cacheprovider $(printf 'tests/unit_tests/%s ' $tests)
