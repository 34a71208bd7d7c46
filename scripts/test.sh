#!/bin/sh
# Every tier of tests, and a line that says how many of each ran.
set -eu
cd "$(dirname "$0")/.."
# the installed wheel is tried, not the sources beside it
unset PYTHONPATH
report=$(mktemp "${TMPDIR:-/tmp}/rvstate-tiers.XXXXXX")
trap 'rm -f "$report"' EXIT
RVSTATE_TIER_REPORT=$report .venv/bin/pytest -q -n 2 --dist loadgroup "$@" tests
if [ "${CI:-}" = true ] && ! grep -q '^cluster passed [1-9]' "$report"; then
    echo "The cluster tier did not run." >&2
    exit 1
fi
