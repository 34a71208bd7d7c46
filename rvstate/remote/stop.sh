#!/bin/sh
# End runs for good that go on in segments: a mark keeps them from being begun again, and a job that
# came back into the queue meanwhile is cancelled once more.
#   main SCRATCH_TEMPLATE HOME (RUN_DIR JOBS)...
# RUN_DIR: of a run, or of an element of an array, perhaps below /{scratch}.  JOBS: ids with commas.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    trap '' HUP PIPE
    rv_account "$1" "$2"
    shift 2
    jobs=''
    while [ $# -ge 2 ]; do
        rv_real "$1"
        # an element that has not begun has no directory yet
        (umask 077 && mkdir -p "$rv_path") || return 1
        date +%s | rv_store "$rv_path/cancelled" 600 || return 1
        jobs=$jobs,$2
        shift 2
    done
    jobs=${jobs#,}
    # shellcheck disable=SC2046 # their numbers
    scancel $(printf '%s' "$jobs" | tr , ' ') || return 1
    # a segment that was ending may have asked for the next one just before
    for turn in 1 1 1 2 2 3 5; do
        case $(squeue --noheader --states=all --jobs="$jobs" --format=%T 2>/dev/null | sort -u | tr '\n' ' ') in
            *COMPLETING* | *RUNNING*) ;;
            *PENDING* | *REQUEUED*)
                # shellcheck disable=SC2046
                scancel $(printf '%s' "$jobs" | tr , ' ')
                ;;
            *) return 0 ;;
        esac
        sleep "$turn"
    done
}
