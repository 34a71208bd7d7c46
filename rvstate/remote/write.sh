#!/bin/sh
# Put whole files in place: each at once or not at all, and never over something that changed
# since the look.
#   main LOCK SECONDS (PATH EXPECTED MODE CONTENTS)...
# EXPECTED: the SHA-256 that the look found, or `absent`, or `any`.  MODE: octal, or - to keep mode
# and owner and to follow a link; CONTENTS are in the escapes of printf's %b.
# Says "done N" or "failed N REASON" for each.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_lock "$1" "$2" || return 1
    shift 2
    number=0
    failed=0
    while [ $# -ge 4 ]; do
        reason=$(put "$1" "$2" "$3" "$4" 2>&1)
        status=$?
        rv_told "$number" "$status" "$reason"
        if [ "$status" != 0 ]; then failed=1; fi
        number=$((number + 1))
        shift 4
    done
    return "$failed"
}

put() {
    path=$1
    if [ -L "$path" ] && [ "$3" != - ]; then
        rv_fail "$path became a link since the look; nothing was written" || return 1
    fi
    if [ -L "$path" ]; then
        # a user's own link (dotfiles): the file behind is edited, the link stays
        path=$(readlink -f "$path") || rv_fail "$1 is a link that leads nowhere" || return 1
    fi
    unchanged "$2" || return 1
    if [ "$3" = 600 ]; then
        (umask 077 && mkdir -p "${path%/*}") || return 1
    else
        mkdir -p "${path%/*}" || return 1
    fi
    printf '%b' "$4" | rv_store "$path" "$3"
}

# Whether $path is what the look found, $1, and the user's to change.
unchanged() {
    case $1 in
        any) return 0 ;;
        absent)
            if [ -e "$path" ]; then
                rv_fail "$path appeared since the look and was left alone; run converge again"
                return
            fi
            ;;
        *)
            if [ "$(rv_digest "$path")" != "$1" ]; then
                rv_fail "$path changed since the look and was left alone; run converge again"
                return
            fi
            # shellcheck disable=SC3067 # dash, bash, ksh, zsh and busybox have -O
            if ! [ -O "$path" ] || ! [ -w "$path" ]; then
                rv_fail "$path is not yours to change, or read-only; set manage = false in [shell]"
            fi
            ;;
    esac
}
