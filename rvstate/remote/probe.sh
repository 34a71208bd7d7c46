#!/bin/sh
# One look at an account: who we are, what lies at the given paths, what the tools are.  Only reads.
#   main SCRATCH_TEMPLATE HOME (WORD VALUE)...
# WORD: stat PATH     type, mode, owner, link target
#       digest PATH   SHA-256 of a file
#       text PATH     contents of a file of at most 1 MiB
#       tree PATH     bytes, entries and foreign owners of a real directory (nothing for a link)
#       space PATH    free bytes and inodes of the file system that would hold PATH
#       tool NAME     where a program is
#       records DIR   the contents of every file in DIR
# Paths may start with /{home} and /{scratch}.  Every answer carries the number of its question.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    shift 2
    rv_section account
    printf 'user %s\nuid %s\nhome %s\nscratch %s\nshell %s\nnode %s\nclock %s\numask %s\n' \
        "$rv_user" "$(id -u)" "$rv_home" "$rv_scratch" "${SHELL:-/bin/sh}" "$(uname -n)" \
        "$(date +%s)" "$(umask)"
    number=0
    # answered questions leave at the front, paths to stat join at the back: no process for quoting
    questions=$#
    while [ "$questions" -ge 2 ]; do
        word=$1
        value=$2
        shift 2
        questions=$((questions - 2))
        rv_real "$value"
        case $word in
            stat) if present; then set -- "$@" "$rv_path"; fi ;;
            digest) look_digest ;;
            text) look_text ;;
            tree) look_tree ;;
            space) look_space ;;
            tool) look_tool "$value" ;;
            records) look_records ;;
            *) rv_fail "probe: unknown question $word" || return 1 ;;
        esac
        number=$((number + 1))
    done
    # all paths in one process; it prints each path, so order and absence do not matter
    [ $# -gt 0 ] || return 0
    rv_section stats
    stat_all "$@"
}

# Whether something is at $rv_path; says so at once where a closed door hides the answer.
present() {
    if [ -e "$rv_path" ] || [ -L "$rv_path" ]; then return 0; fi
    parent=${rv_path%/*}
    while [ -n "$parent" ] && ! [ -e "$parent" ]; do parent=${parent%/*}; done
    if [ -n "$parent" ] && [ -d "$parent" ] && ! [ -x "$parent" ]; then
        rv_section "unreadable $number"
        printf '%s' "$parent"
    fi
    return 1
}

# type, octal mode, owner, bytes, type after following links, path, NUL, link target, NUL
stat_all() {
    if find / -prune -printf '' 2>/dev/null; then
        find "$@" -prune -printf '%y %m %U %s %Y %p\0%l\0'
    else
        for path in "$@"; do bsd_stat "$path"; done
    fi
}

bsd_stat() {
    case $(stat -f %HT "$1") in
        Directory) type=d ;;
        'Regular File') type=f ;;
        'Symbolic Link') type=l ;;
        *) type=o ;;
    esac
    after=$type
    if [ "$type" = l ]; then
        if [ -d "$1" ]; then after=d; elif [ -e "$1" ]; then after=f; else after=N; fi
    fi
    printf '%s %s %s %s\0' "$type" "$(stat -f '%Lp %u %z' "$1")" "$after" "$1"
    [ "$type" = l ] && readlink -n "$1"
    printf '\0'
}

look_digest() {
    [ -f "$rv_path" ] || return 0
    rv_section "digest $number"
    rv_digest "$rv_path"
}

look_text() {
    [ -f "$rv_path" ] || return 0
    if ! [ -r "$rv_path" ]; then
        rv_section "unreadable $number"
        printf '%s' "$rv_path"
    elif [ "$(wc -c <"$rv_path")" -le 1048576 ]; then
        rv_section "text $number"
        cat "$rv_path"
    else
        rv_section "large $number"
    fi
}

look_tree() {
    if [ -L "$rv_path" ] || ! [ -d "$rv_path" ]; then return 0; fi
    rv_section "tree $number"
    du -sk "$rv_path" 2>/dev/null | {
        read -r kib _
        printf '%s ' "$((${kib:-0} * 1024))"
    }
    find "$rv_path" -print0 2>/dev/null | tr -dc '\0' | wc -c
    find "$rv_path" ! -user "$(id -u)" -print 2>/dev/null | head -n 1
}

look_space() {
    parent=$rv_path
    while [ -n "$parent" ] && ! [ -d "$parent" ]; do parent=${parent%/*}; done
    rv_section "space $number"
    df -Pk "${parent:-/}" 2>/dev/null | tail -n 1
    # the POSIX form of df has no inodes; where the file system counts none, GNU prints "-"
    df -Pi "${parent:-/}" 2>/dev/null | tail -n 1
}

look_tool() {
    found=$(PATH=$PATH:$rv_home/.local/bin:$rv_scratch/.rv/tools/bin command -v "$1") || return 0
    rv_section "tool $number"
    printf '%s' "$found"
}

look_records() {
    [ -d "$rv_path" ] || return 0
    for file in "$rv_path"/*; do
        [ -f "$file" ] || continue
        # its first line names the original; a record whose original is gone means nothing
        IFS=' ' read -r _ original <"$file"
        [ -d "$original" ] || continue
        rv_section "record $number"
        printf 'record %s\n' "$file"
        cat "$file"
    done
}
