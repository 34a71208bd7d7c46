#!/bin/sh
# New bytes of log files, and what the scheduler says of the job meanwhile.
#   main SCRATCH_TEMPLATE HOME QUEUE ACCOUNTING RUN_DIR (PATH OFFSET)...
# QUEUE and ACCOUNTING: command lines about the one job, or empty; accounting is asked where the
# queue no longer knows it.  OFFSET: bytes already read, or +N to begin with the last N lines; at
# most 4 MiB of a file come back, under the byte that they begin at.  A PATH without a slash is a file
# of RUN_DIR.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    queue=$3
    accounting=$4
    rv_real "$5"
    run=$rv_path
    shift 5
    # state first: whatever the job writes before it ends is then read below
    rv_section exit
    cat "$run/exit" 2>/dev/null
    if [ -n "$queue" ]; then
        rv_section queue
        # why it failed is on standard error: a job that it does not know, or no controller
        rows=$(eval "$queue")
        status=$?
        printf '%s\n' "$rows"
        if [ "$status" -ne 0 ]; then rv_section queue-failed; fi
        if [ -z "$rows" ]; then
            rv_section accounting
            eval "$accounting" 2>/dev/null || :
        fi
    fi
    number=0
    while [ $# -ge 2 ]; do
        case $1 in
            */*) file=$1 ;;
            *) file=$run/$1 ;;
        esac
        if [ -r "$file" ]; then
            from=$2
            case $2 in
                +*) from=$(($(wc -c <"$file") - $(tail -n "${2#+}" "$file" | wc -c))) ;;
            esac
            # the file may have grown in between
            [ "$from" -ge 0 ] || from=0
            rv_section "log $number $from"
            tail -c "+$((from + 1))" "$file" | head -c 4194304
        fi
        number=$((number + 1))
        shift 2
    done
}
