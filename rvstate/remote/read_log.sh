#!/bin/sh
# New bytes of log files, and what the scheduler says of the job meanwhile.
#   main SCRATCH_TEMPLATE HOME QUEUE RUN_DIR (PATH OFFSET)...
# QUEUE: a command line, or empty.  OFFSET: bytes already read; at most 4 MiB come back.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    queue=$3
    rv_real "$4"
    run=$rv_path
    shift 4
    # state first: whatever the job writes before it ends is then read below
    rv_section exit
    cat "$run/exit" 2>/dev/null
    rv_section queue
    if [ -n "$queue" ]; then eval "$queue" 2>/dev/null || :; fi
    number=0
    while [ $# -ge 2 ]; do
        if [ -r "$1" ]; then
            rv_section "log $number"
            tail -c "+$(($2 + 1))" "$1" | head -c 4194304
        fi
        number=$((number + 1))
        shift 2
    done
}
