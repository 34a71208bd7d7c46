#!/bin/sh
# Give a run up for good: what it became is cancelled, and nothing is submitted for it any more.
#   main LOCK SECONDS RUN_DIR QUEUE CANCELLER...
# QUEUE: as for submit.sh.  CANCELLER: the words before the jobs' ids, `scancel`.  Waits for the lock:
# a submission that is still under way has it.
# Says `cancelled JOB` for each job.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    # the user is leaving, and this must not stop half way
    trap '' HUP PIPE
    run=$3
    lock=$1
    patience=$2
    queue=$4
    shift 4
    (umask 077 && mkdir -p "${lock%/*}" "$run") || return 1
    # before the lock: a submission that waits for it must see this
    date +%s | rv_store "$run/cancelled" 600 || return 1
    rv_lock "$lock" "$patience" || return 1
    trap '' HUP
    # shellcheck disable=SC2034 # for the command line that is given
    rv_user=$(id -un)
    jobs=$(cat "$run/job" 2>/dev/null | tr , ' ')
    if [ -z "$jobs" ] && [ -f "$run/intent" ]; then
        listed=$(eval "$queue") || rv_fail "the scheduler does not answer" || return 1
        jobs=$(printf '%s\n' "$listed" | grep -F -e "${run##*/}" | sed -n 's/^\([0-9][0-9]*\).*/\1/p')
    fi
    # shellcheck disable=SC2086 # ids are numbers
    if [ -n "$jobs" ]; then "$@" $jobs || return 1; fi
    for job in $jobs; do printf 'cancelled %s\n' "$job"; done
}
