#!/bin/sh
# Bring files of the account to the laptop.
#   main list SCRATCH_TEMPLATE HOME BASE PATH     every file, as SIZE NUL NAME NUL
#   main send SCRATCH_TEMPLATE HOME BASE PATH     a compressed tar archive of the same
# BASE: the directory that a relative PATH starts from, perhaps below /{scratch}.  Names are relative
# to PATH; for a single file it is the file's own.  Only reads.
# shellcheck shell=sh
# shellcheck disable=SC2016,SC2154 # what find runs is expanded there; rv_* come from lib.sh, in front

main() {
    rv_account "$2" "$3"
    rv_real "$4"
    base=$rv_path
    rv_real "$5"
    case $rv_path in
        /*) path=$rv_path ;;
        *) path=$base/$rv_path ;;
    esac
    # a program that streams says its group first, so that Ctrl-C can end it
    [ "$1" = list ] || rv_section "group $(ps -o pgid= -p $$ | tr -d ' ')"
    if [ -d "$path" ]; then
        cd -- "$path" || return 1
        set -- "$1" .
    elif [ -f "$path" ]; then
        cd -- "${path%/*}" || return 1
        set -- "$1" "./${path##*/}"
    else
        rv_fail "there is no file or directory $path on the cluster"
        return 1
    fi
    if [ "$1" = list ]; then
        rv_section files
        find "$2" \( -type f -o -type l \) -exec sh -c 'for file; do
            if [ -L "$file" ]; then size=0; else size=$(wc -c <"$file") || size=0; fi
            printf "%s\0%s\0" "$((size))" "$file"
        done' sh {} +
    else
        find "$2" \( -type f -o -type l \) -print0 | tar --no-recursion --null -T - -czf -
        status=$?
        # at once behind the last byte, as whoever reads a stream expects it
        printf '@@rvstate %s status %s\n' "$rv_nonce" "$status"
        exit "$status"
    fi
}
