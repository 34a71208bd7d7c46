#!/bin/sh
# What is known of runs: their own records, the queue, and accounting for those that left it.
#   main SCRATCH_TEMPLATE HOME RUNS LIMIT QUEUE ACCOUNTING
# RUNS: the directory of runs, perhaps below /{scratch}, of which the newest LIMIT count.  QUEUE and
# ACCOUNTING are command lines (empty for a scheduler that is asked elsewhere); ACCOUNTING is given
# --jobs=ID,... behind.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    rv_real "$3"
    runs=$rv_path
    limit=$4
    queue=$5
    accounting=$6
    ids=''
    set --
    # shellcheck disable=SC2012 # run ids are ours: digits, letters, dashes
    for run in $(ls -1r "$runs" 2>/dev/null | head -n "$limit"); do
        set -- "$@" "$run/job" "$run/exit" "$run/intent" "$run/receipt.json" "$run/notify/due" \
            "$run/hold/state" "$run/copies" "$run/chain" "$run/dvc" "$run/stages"
        if [ -s "$runs/$run/job" ] && read -r id <"$runs/$run/job"; then
            ids=$ids,$id
        fi
    done
    rv_section records
    # one process for all the small files; /dev/null keeps the names in front
    if [ $# -gt 0 ]; then (cd "$runs" && grep -s '' "$@" /dev/null); fi
    # shellcheck disable=SC2012
    for run in $(ls -1r "$runs" 2>/dev/null | head -n "$limit"); do
        if [ -d "$runs/$run/ended" ]; then
            ended "$run"
            # of experiments of DVC what became of their results, too
            if [ -e "$runs/$run/dvc" ]; then (cd "$runs" && grep -s '' "$run"/elements/*/dvc /dev/null); fi
        fi
    done
    [ -n "$queue" ] || return 0
    rv_section queue
    eval "$queue" || rv_section queue-failed
    rv_section accounting
    # accounting may be absent at a site: then it says nothing
    if [ -n "$ids" ]; then eval "$accounting --jobs=${ids#,}" 2>/dev/null || :; fi
}

# ended RUN: which elements of an array have ended, and their exit codes, from names alone.
ended() {
    printf '%s/ended:' "$1"
    (cd "$runs/$1/ended" && for mark in *-*; do
        if [ -e "$mark" ]; then printf '%s ' "$mark"; fi
    done)
    printf '\n'
}
