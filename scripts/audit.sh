#!/bin/sh
# Look for published vulnerabilities in what is installed in .venv, and in what the servers' environment has. For
# information: the exit status is always 0.
#
# Usage: scripts/audit.sh [ARGUMENT ...]           arguments are pip-audit's
cd "$(dirname "$0")/.." || exit 0

audit() { # what it is, for the report; and pip-audit's arguments that say what to look at
    what=$1
    shift
    report=$(.venv/bin/pip-audit "$@" --vulnerability-service osv --timeout 5 --progress-spinner off --desc off 2>&1 \
        </dev/null)
    status=$?
    case $status/$report in
    0/*) echo "==> No published vulnerability is known in $what" ;;
    */*" known vulnerabilit"*)
        printf '%s\n' "$report"
        echo "==> These are published vulnerabilities in $what; SECURITY.md tells which of them matter here"
        ;;
    *) echo "==> Not audited, $what: $(printf '%s\n' "$report" | tail -n 1)" ;;
    esac
}

audit "the client's environment" --local --skip-editable "$@"
audit "the servers' environment" --no-deps --disable-pip --requirement langchain_petals/swarm/requirements/servers.txt "$@"
exit 0
