#!/bin/sh
# Make directories and set their modes.
#   main LOCK SECONDS (MODE PATH)...      MODE is octal, or - for any
# Says "done N" or "failed N REASON" for each, counted from 0.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    # the lock lies in the first directory of all, so that one comes before it
    (umask 077 && mkdir -p "${1%/*}") || return 1
    rv_lock "$1" "$2" || return 1
    shift 2
    number=0
    failed=0
    while [ $# -ge 2 ]; do
        if reason=$(directory "$1" "$2" 2>&1); then
            printf 'done %s\n' "$number"
        else
            failed=1
            printf 'failed %s %s\n' "$number" "$reason"
        fi
        number=$((number + 1))
        shift 2
    done
    return "$failed"
}

directory() {
    if [ "$1" = - ]; then
        mkdir -p "$2"
    elif [ -d "$2" ] && ! [ -L "$2" ]; then
        chmod "$1" "$2"
    else
        mkdir -p "${2%/*}" && mkdir -m "$1" "$2"
    fi
}
