#!/bin/sh
# Find the job that a run became, for a laptop that never heard the answer; submits nothing.
#   main LOCK SECONDS RUN_DIR QUEUE HISTORY
# QUEUE and HISTORY: as for submit.sh.  Says `found JOB` or `none`.  Waits for the lock: a submission
# that is still under way has it.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    run=$3
    if ! [ -d "$run" ]; then
        printf 'none\n'
        return 0
    fi
    rv_lock "$1" "$2" || return 1
    # shellcheck disable=SC2034 # for the command lines that are given
    rv_user=$(id -un)
    if [ -s "$run/job" ]; then
        printf 'found %s\n' "$(cat "$run/job")"
        return 0
    fi
    # an array of several jobs is taken up part by part, when it is submitted again
    if ! [ -f "$run/intent" ] || [ -e "$run/part.1" ]; then
        printf 'none\n'
        return 0
    fi
    listed=$(eval "$4") || rv_fail "the scheduler does not answer" || return 1
    past=$(eval "$5" 2>/dev/null)
    job=$(printf '%s\n%s\n' "$listed" "$past" | grep -F -e "${run##*/}" |
        sed -n 's/^\([0-9][0-9]*\).*/\1/p')
    # of several jobs of which one runs all count
    if [ -f "$run/choices" ]; then
        job=$(printf '%s\n' "$job" | sort -nu | paste -s -d , -)
    else
        job=$(printf '%s\n' "$job" | tail -n 1)
    fi
    if [ -z "$job" ]; then
        printf 'none\n'
        return 0
    fi
    if [ -f "$run/choices" ]; then
        # the one that has begun meanwhile has written that it is the run
        printf '%s\n' "$job" | rv_store "$run/copies" 600
        rv_store_first "$run"
    else
        printf '%s\n' "$job" | rv_store "$run/job" 600
    fi
    printf 'found %s\n' "$(cat "$run/job")"
}
