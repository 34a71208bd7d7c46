#!/bin/sh
# Ask a compute node, by a job of a minute, whether it sees the same home and scratch.
#   main SCRATCH_TEMPLATE HOME OPTION...      OPTION are options of srun
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    shift 2
    home_mark=$(mktemp "$rv_home/.rvstate-doctor.XXXXXX") || home_mark=
    scratch_mark=$(mktemp "$rv_scratch/.rvstate-doctor.XXXXXX" 2>/dev/null) || scratch_mark=
    trap 'clean' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # shellcheck disable=SC2016 # expanded on the node
    srun --quiet --ntasks=1 --time=1 --immediate=60 --job-name=rvstate-doctor "$@" sh -c '
        printf "node %s\n" "$(uname -n)"
        for mark in "$1" "$2"; do
            if [ -n "$mark" ] && [ -e "$mark" ]; then printf "seen\n"; else printf "unseen\n"; fi
        done
        printf "clock %s\n" "$(date +%s)"
    ' sh "$home_mark" "$scratch_mark" </dev/null
    status=$?
    clean
    return "$status"
}

clean() {
    rm -f "$home_mark" "$scratch_mark"
}
