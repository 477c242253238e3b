#!/bin/sh
# Make .venv, or bring it up to date: a fitting Python, this package (editable) and its development tools. With the
# argument `servers`, do the same for the environment of local swarms' servers, beside it in .servers.
#
# Usage: scripts/make_venv.sh [servers]            PYTHON=/path/to/python chooses the interpreter
#
# The last act is to write .venv/.complete, which names what the environment was made from. Without that file .venv is
# taken for half-made and made anew; when only the project's files changed it is updated in place. The servers'
# environment is made by `langchain-petals server install`, which returns at once when it is up to date.
set -eu
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

venv=.venv
complete=$venv/.complete
log=$venv/install.log
failed=$venv/failed
lowest=10 # as requires-python in pyproject.toml
# Those that the servers need, too, come first, so that both environments can be made from one of them.
commands='python3.12 python3.11 python3.10 python3.14 python3.13 python3'

# Print version, home and executable of a command's interpreter. A virtual environment's answer names its base, so that
# an activated .venv is not made from itself; a command on PATH may exist and still not run (pyenv's shims).
probe() {
    "$1" -c 'import sys
print("%d.%d.%d" % sys.version_info[:3], sys.base_prefix, getattr(sys, "_base_executable", sys.executable), sep="\n")
print(sys.implementation.name)' </dev/null 2>/dev/null
}

identity() { # the first two of these lines: version and home
    probe "$1" | head -n 2
}

line() {
    printf '%s\n' "$2" | sed -n "$1p"
}

find_python() { # the first that fits
    python=
    found=
    lacks_venv=
    for command in ${PYTHON:-$commands}; do
        where=$(command -v "$command") || continue
        answer=$(probe "$command") || {
            found="$found
  $where: does not run"
            continue
        }
        version=$(line 1 "$answer")
        minor=${version#*.}
        minor=${minor%%.*}
        verdict=
        if [ "$(line 4 "$answer")" != cpython ]; then
            verdict="not CPython"
        elif [ "${version%%.*}" -ne 3 ] || [ "$minor" -lt $lowest ]; then
            verdict="too old"
        elif ! "$command" -c 'import ensurepip, venv' </dev/null >/dev/null 2>&1; then
            verdict="cannot make virtual environments (its venv and ensurepip modules are not installed)"
            lacks_venv=${lacks_venv:-3.$minor}
        elif [ -z "$python" ]; then
            python=$(line 3 "$answer")
        fi
        found="$found
  $where: Python $version, ${verdict:-fits}"
    done
    [ -n "$python" ] || give_up
}

give_up() {
    {
        echo "==> No fitting Python: langchain-petals needs CPython 3.$lowest or newer, with its venv module."
        echo "Found:${found:-
  nothing under the name(s) ${PYTHON:-$commands}}"
        if [ -n "$lacks_venv" ]; then
            echo "Install what is missing (Debian, Ubuntu: apt install python$lacks_venv-venv) and run make again."
        else
            echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12;"
            echo "anywhere: pyenv or uv), or name one: make PYTHON=/path/to/python ..."
        fi
    } >&2
    exit 1
}

run() { # run pip or venv; show the steps that take long, and all that was said if it fails
    rm -f "$failed"
    { "$@" </dev/null 2>&1 || : >"$failed"; } | tee "$log" | while IFS= read -r said; do
        case $said in
        *Downloading*' ('*[0-9][0-9].[0-9]' MB)' | *Downloading*' GB)')
            file=${said##*Downloading }
            version=${file#*-}
            echo "    Downloading ${file%%-*} ${version%%-*} (${said##*(}"
            ;;
        'Building wheel for '*': started') echo "    ${said%: started}" ;;
        'Installing collected packages: '*,*) echo "    Installing $(echo "${said#*: }" | wc -w | tr -d ' ') packages" ;;
        esac
    done
    if [ -e "$failed" ]; then
        cat "$log" >&2
        echo "==> Failed: $*" >&2
        exit 1
    fi
}

folder=$PWD # a virtual environment does not survive being moved

has_servers() { # the servers' environment is whole: the released petals, from the list that the package has now
    released=$(sed -n 's/^RELEASED = \("[^"]*"\)$/\1/p' langchain_petals/swarm/installation.py)
    [ -f "$LANGCHAIN_PETALS_DATA_DIR/.complete" ] && [ "$(cat "$LANGCHAIN_PETALS_DATA_DIR/.complete")" = "$1" ] &&
        [ -x "$LANGCHAIN_PETALS_DATA_DIR/servers/bin/python" ] &&
        grep -qF "\"source\": $released" "$LANGCHAIN_PETALS_DATA_DIR/servers/langchain-petals.json" 2>/dev/null
}

make_servers() {
    export LANGCHAIN_PETALS_DATA_DIR="${LANGCHAIN_PETALS_DATA_DIR:-$PWD/.servers}"
    made_from=$(printf '%s\n' "$folder" "$(cat langchain_petals/swarm/requirements/* | cksum)")
    ! has_servers "$made_from" || return 0
    echo "==> Making the servers' environment in ${LANGCHAIN_PETALS_DATA_DIR#"$PWD"/} (a few minutes the first time)"
    $venv/bin/langchain-petals server install
    printf '%s\n' "$made_from" >"$LANGCHAIN_PETALS_DATA_DIR/.complete"
}

make_client() {
    files=$(cat pyproject.toml constraints.txt scripts/make_venv.sh | cksum)
    if [ -f $complete ]; then
        made_from=$(cat $complete)
        if [ "$(line 1 "$made_from")" = "$folder" ] &&
            [ "$(identity $venv/bin/python)" = "$(printf '%s\n' "$made_from" | sed -n 2,3p)" ] &&
            { [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity $venv/bin/python)" ]; }; then
            [ "$(line 4 "$made_from")" != "$files" ] || return 0
            echo "==> Updating $venv: pyproject.toml, constraints.txt or scripts/make_venv.sh has changed"
            rm $complete
        else
            echo "==> Making $venv anew: its Python or its place has changed"
            rm -rf $venv
        fi
    elif [ -e $venv ]; then
        echo "==> Making $venv anew: it is incomplete"
        rm -rf $venv
    fi

    started=$(date +%s)
    if [ ! -e $venv ]; then
        find_python
        echo "==> Creating $venv with Python $(line 1 "$(probe "$python")") ($python)"
        mkdir $venv
        run "$python" -m venv $venv
    fi
    pip="$venv/bin/python -m pip"
    run $pip install --upgrade 'pip>=25.1' # the first that knows --group
    echo "==> Installing langchain-petals, what it needs and the development tools (a few minutes the first time)"
    run $pip install --constraint constraints.txt --editable . --group dev
    printf '%s\n' "$folder" "$(identity $venv/bin/python)" "$files" >$complete
    echo "==> $venv is ready, after $(($(date +%s) - started)) s"
}

make_client
case ${1:-} in
servers) make_servers ;;
esac
