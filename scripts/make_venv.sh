#!/bin/sh
# Make .venv, or bring it up to date: the newest fitting Python, this package (editable), its development tools, petals.
#
# Usage: scripts/make_venv.sh                      PYTHON=/path/to/python chooses the interpreter
#
# The last act is to write .venv/.ready, which names what the environment was made from. Without that file .venv is
# taken for half-made and made anew; when only the project's files changed it is updated in place.
set -eu
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

venv=.venv
ready=$venv/.ready
log=$venv/install.log
failed=$venv/failed
lowest=10 # 3.10 up to 3.12, as requires-python in pyproject.toml
highest=12

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

find_python() {
    best=-1
    found=
    lacks_venv=
    for command in ${PYTHON:-python3.12 python3.11 python3.10 python3}; do
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
        elif [ "$minor" -gt $highest ]; then
            verdict="too new"
        elif ! "$command" -c 'import ensurepip, venv' </dev/null >/dev/null 2>&1; then
            verdict="cannot make virtual environments (its venv and ensurepip modules are not installed)"
            lacks_venv=${lacks_venv:-3.$minor}
        elif [ "$minor" -gt "$best" ]; then
            best=$minor
            python=$(line 3 "$answer")
        fi
        found="$found
  $where: Python $version, ${verdict:-fits}"
    done
    [ "$best" -ge 0 ] || give_up
}

give_up() {
    {
        echo "==> No fitting Python: langchain-petals needs CPython 3.$lowest to 3.$highest, with its venv module."
        echo "Found:${found:-
  nothing under the name(s) ${PYTHON:-python3.12, python3.11, python3.10, python3}}"
        if [ -n "$lacks_venv" ]; then
            echo "Install what is missing (Debian, Ubuntu: apt install python$lacks_venv-venv) and run make again."
        else
            echo "Install one (Debian, Ubuntu: apt install python3.$highest python3.$highest-venv, or one of the others;"
            echo "macOS: brew install python@3.$highest; anywhere: pyenv or uv), or name one: make PYTHON=/path/to/python ..."
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
files=$(cat pyproject.toml constraints.txt scripts/make_venv.sh | cksum)
if [ -f $ready ]; then
    made_from=$(cat $ready)
    if [ "$(line 1 "$made_from")" = "$folder" ] &&
        [ "$(identity $venv/bin/python)" = "$(printf '%s\n' "$made_from" | sed -n 2,3p)" ] &&
        { [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity $venv/bin/python)" ]; }; then
        [ "$(line 4 "$made_from")" != "$files" ] || exit 0
        echo "==> Updating $venv: pyproject.toml, constraints.txt or scripts/make_venv.sh has changed"
        rm $ready
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
echo "==> Installing petals beside them (--no-deps: its own pins do not fit LangChain 1.x)"
run $pip install --constraint constraints.txt --no-deps petals
printf '%s\n' "$folder" "$(identity $venv/bin/python)" "$files" >$ready
echo "==> $venv is ready, after $(($(date +%s) - started)) s"
