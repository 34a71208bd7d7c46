#!/bin/sh
# Every tier of tests, and a line that says how many of each ran.
set -eu
cd "$(dirname "$0")/.."
if ! command -v ssh >/dev/null 2>&1; then
    # a client program; it starts no service
    if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-client
    else
        echo "test: the program ssh is needed for the tests on the mini-cluster." >&2
        echo "  → Install it (Debian and Ubuntu: apt-get install openssh-client)." >&2
        exit 1
    fi
fi
# the installed wheel is tried, not the sources beside it
unset PYTHONPATH
report=$(mktemp "${TMPDIR:-/tmp}/rvstate-tiers.XXXXXX")
trap 'rm -f "$report"' EXIT
# three for two cores: tests on a cluster mostly wait; the tests of a file share a worker, and a worker has one cluster
RVSTATE_TIER_REPORT=$report .venv/bin/pytest -q -n 3 --dist loadfile --no-loadscope-reorder "$@" tests
if [ "${CI:-}" = true ] && ! grep -q '^cluster passed [1-9]' "$report"; then
    echo "The cluster tier did not run." >&2
    exit 1
fi
