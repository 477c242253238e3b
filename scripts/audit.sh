#!/bin/sh
# Look for published vulnerabilities in what is installed in .venv. For information: the exit status is always 0.
#
# Usage: scripts/audit.sh [ARGUMENT ...]           arguments are pip-audit's
cd "$(dirname "$0")/.." || exit 0
report=$(.venv/bin/pip-audit --local --skip-editable --vulnerability-service osv --timeout 5 --progress-spinner off \
    --desc off "$@" 2>&1 </dev/null)
status=$?
case $status/$report in
0/*) echo "==> No published vulnerability is known in what is installed" ;;
*/*" known vulnerabilit"*)
    printf '%s\n' "$report"
    echo "==> These are published vulnerabilities; SECURITY.md tells which of them matter here"
    ;;
*) echo "==> Not audited: $(printf '%s\n' "$report" | tail -n 1)" ;;
esac
exit 0
