#!/bin/sh
# Put whole files in place: each at once or not at all, and never over something that changed
# since the look.
#   main LOCK SECONDS (PATH EXPECTED MODE CONTENTS)...
# EXPECTED: the SHA-256 that the look found, or `absent`, or `any`; MODE is octal, or - to keep it;
# CONTENTS are in the escapes of printf's %b.  Says "done N" or "failed N REASON" for each.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_lock "$1" "$2" || return 1
    shift 2
    number=0
    failed=0
    while [ $# -ge 4 ]; do
        if reason=$(put "$@" 2>&1); then
            printf 'done %s\n' "$number"
        else
            failed=1
            printf 'failed %s %s\n' "$number" "$reason"
        fi
        number=$((number + 1))
        shift 4
    done
    return "$failed"
}

put() {
    path=$1
    if [ -L "$path" ]; then
        # a user's own link (dotfiles): the file behind it is edited, the link stays
        path=$(readlink -f "$path") || rv_fail "$1 is a link that leads nowhere" || return 1
    fi
    case $2 in
        any) ;;
        absent)
            if [ -e "$path" ]; then
                rv_fail "$path appeared since the look" || return 1
            fi
            ;;
        *)
            if [ "$(rv_digest "$path")" != "$2" ]; then
                rv_fail "$path changed since the look" || return 1
            fi
            ;;
    esac
    mode=$3
    if [ "$mode" = - ]; then
        mode=$(mode_of "$path")
    fi
    mkdir -p "${path%/*}" || return 1
    printf '%b' "$4" | rv_store "$path" "$mode"
}

# The octal mode of a file, or what the user's umask makes of a new one.
mode_of() {
    if [ -e "$1" ]; then
        stat -c %a "$1" 2>/dev/null || stat -f %Lp "$1"
    else
        printf '%o' "$((0666 & ~$(umask)))"
    fi
}
