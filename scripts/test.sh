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
RVSTATE_TIER_REPORT=$report
export RVSTATE_TIER_REPORT

status=0
# three for two cores: tests on a cluster mostly wait; the tests of a file share a worker, and a worker has one cluster
.venv/bin/pytest -q -n 3 --dist loadfile --no-loadscope-reorder "$@" tests || status=$?
if [ "${CI:-}" = true ] && ! grep -q '^cluster passed [1-9]' "$report"; then
    echo "The cluster tier did not run." >&2
    exit 1
fi
# A real Slurm has its own clocks, so have jobs of this machine, and a machine that does too much at once comes
# too late for them.  What failed there beside everything else has to pass by itself, a whole file at a time;
# what fails in another tier has failed.
again=$(sed -n -e 's/^failed cluster //p' -e 's/^failed account //p' "$report")
if [ "$status" -eq 1 ] && [ -n "$again" ] && ! grep -q -e '^failed unit' -e '^failed shell' "$report"; then
    printf '\nFailed beside the others, and run once more by themselves:\n%s\n' "$again"
    status=0
    # shellcheck disable=SC2086 # names of files of ours, without blanks
    .venv/bin/pytest -q $again || status=$?
    if [ "$status" -eq 0 ]; then echo "They pass by themselves; see the failures above all the same."; fi
fi
exit "$status"
