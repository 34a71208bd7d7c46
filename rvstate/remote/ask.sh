#!/bin/sh
# Put several questions at once and tell each answer apart; only reads.
#   main SCRATCH_TEMPLATE HOME (NAME TEXT)...
# TEXT is a command line, or a whole script with a frame of its own; it may use $rv_user, $rv_home
# and $rv_scratch.  Each answer is a section `NAME STATUS`; behind it `NAME errors`, if there are any.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    shift 2
    # they wait for different servers, so they are asked side by side
    folder=$(mktemp -d) || folder=
    trap 'forget' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [ -n "$folder" ]; then
        at_once "$@"
    else
        one_by_one "$@"
    fi
}

at_once() {
    number=0
    for text in "$@"; do
        number=$((number + 1))
        # every second one is a name
        [ $((number % 2)) = 0 ] || continue
        answer "$text" "$folder/$number" &
    done
    wait
    number=0
    for name in "$@"; do
        number=$((number + 1))
        [ $((number % 2)) = 1 ] || continue
        status=unknown
        read -r status <"$folder/$((number + 1)).status"
        rv_section "$name $status"
        cat "$folder/$((number + 1))"
        if [ -s "$folder/$((number + 1)).errors" ]; then
            rv_section "$name errors"
            tail -c 2000 "$folder/$((number + 1)).errors"
        fi
    done
}

answer() {
    trap - EXIT HUP INT TERM
    (eval "$1") >"$2" 2>"$2.errors" </dev/null
    printf '%s\n' "$?" >"$2.status"
}

one_by_one() {
    while [ $# -ge 2 ]; do
        text=$(eval "$2" </dev/null)
        rv_section "$1 $?"
        printf '%s\n' "$text"
        shift 2
    done
}

forget() {
    if [ -n "$folder" ]; then rm -rf "$folder"; fi
}
