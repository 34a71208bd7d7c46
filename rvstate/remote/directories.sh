#!/bin/sh
# Make directories and set their modes.
#   main LOCK SECONDS (MODE PATH)...
# MODE is octal, or - for any, or group: any, and one that is made can be written to by its group.
# Says "done N" or "failed N REASON" for each, counted from 0.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    # the lock lies in our first directory, so that one comes before it
    (umask 077 && mkdir -p "${1%/*}") || return 1
    rv_lock "$1" "$2" || return 1
    shift 2
    number=0
    failed=0
    while [ $# -ge 2 ]; do
        reason=$(directory "$1" "$2" 2>&1)
        status=$?
        rv_told "$number" "$status" "$reason"
        if [ "$status" != 0 ]; then failed=1; fi
        number=$((number + 1))
        shift 2
    done
    return "$failed"
}

directory() {
    if [ -L "$2" ] && [ "$1" != - ] && [ "$1" != group ]; then
        rv_fail "$2 became a link since the look; run converge again"
    elif [ -d "$2" ]; then
        case $1 in
            - | group) ;;
            *) chmod "$1" "$2" ;;
        esac
    elif [ "$1" = - ]; then
        mkdir -p "$2"
    elif [ "$1" = group ]; then
        mkdir -p "$2" && chmod g+rwxs "$2"
    else
        mkdir -p "${2%/*}" && mkdir -m "$1" "$2"
    fi
}
