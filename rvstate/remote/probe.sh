#!/bin/sh
# One look at an account: who we are, what lies at the given paths, what the tools are.  Only reads.
#   main SCRATCH_TEMPLATE HOME (WORD VALUE)...
# WORD: stat PATH     type, mode, owner, link target
#       digest PATH   SHA-256 of a file
#       text PATH     contents of a file of at most 1 MiB
#       tree PATH     bytes, entries, and what cannot be moved in a real directory (nothing for a link)
#       copied PATH   bytes in a directory, if the `tree` before it was answered
#       space PATH    free bytes and inodes of the file system that would hold PATH
#       tool NAME     where a program is
#       records DIR   the contents of every file in DIR
#       environments DIR   every DIR/PROJECT/BRANCH that leads to an environment, and its state
#       schedule KINDS   what runs keepalive day by day, and what is there of it and of these kinds
# Paths may start with /{home} and /{scratch}.  Every answer carries the number of its question.
# Each process costs milliseconds on a busy login node, so questions of one kind are answered by one.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh and environments.sh, which travel in front

main() {
    rv_account "$1" "$2"
    shift 2
    system=$(uname -sn)
    rv_section account
    id=$(id -u)
    printf '%s\0' "user $rv_user" "uid $id" "home $rv_home" "scratch $rv_scratch" \
        "shell ${SHELL:-/bin/sh}" "node ${system#* }"
    date '+clock %s'
    PATH=$PATH:$rv_home/.local/bin:$rv_home/.cargo/bin:$rv_scratch/.rv/tools/bin
    number=0
    # answered questions leave at the front, paths join at the back behind a letter for what is
    # asked about them: no process and no quoting
    questions=$#
    while [ "$questions" -ge 2 ]; do
        word=$1
        value=$2
        shift 2
        questions=$((questions - 2))
        rv_real "$value"
        case $word in
            stat) if present; then set -- "$@" s "$rv_path"; fi ;;
            digest) if [ -f "$rv_path" ]; then set -- "$@" d "$rv_path"; fi ;;
            space) set -- "$@" f "$rv_path" ;;
            text) look_text ;;
            tree) look_tree ;;
            copied) look_copied ;;
            tool)
                rv_section "tool $number"
                command -v "$value"
                ;;
            records) look_records ;;
            environments)
                rv_section "environments $number"
                rv_environments "$rv_path"
                ;;
            schedule) look_schedule ;;
            *) rv_fail "probe: unknown question $word" || return 1 ;;
        esac
        number=$((number + 1))
    done
    answer_all s stat_all "$@"
    answer_all d rv_sha256 "$@"
    answer_all f space_all "$@"
}

# answer_all LETTER COMMAND (LETTER PATH)...: the command with every path behind that letter.
answer_all() {
    letter=$1
    command=$2
    shift 2
    left=$#
    while [ "$left" -ge 2 ]; do
        if [ "$1" = "$letter" ]; then set -- "$@" "$2"; fi
        shift 2
        left=$((left - 2))
    done
    [ $# -gt 0 ] || return 0
    rv_section "$command"
    # one path that went away meanwhile must not take the other answers with it
    "$command" "$@" 2>/dev/null || return 0
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
    case $system in
        Linux*) find "$@" -prune -printf '%y %m %U %s %Y %p\0%l\0' ;;
        *) for path in "$@"; do bsd_stat "$path"; done ;;
    esac
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

# The paths, each with a NUL behind it, then for each a line "KIB_FREE INODES INODES_FREE MOUNT" of
# the file system that would hold it.
space_all() {
    printf '%s\0' "$@"
    left=$#
    while [ "$left" -gt 0 ]; do
        place=$1
        while [ -n "$place" ] && ! [ -d "$place" ]; do place=${place%/*}; done
        shift
        set -- "$@" "${place:-/}"
        left=$((left - 1))
    done
    case $system in
        Linux*) df -k --output=avail,itotal,iavail,target "$@" | sed 1d ;;
        *) df -Pk "$@" | sed '1d;s/^.* \([0-9]*\)  *[0-9]*%  *\(.*\)$/\1 - - \2/' ;;
    esac
}

look_text() {
    [ -f "$rv_path" ] || return 0
    # shellcheck disable=SC3067 # dash, bash, ksh, zsh and busybox have -O
    if ! [ -r "$rv_path" ]; then
        rv_section "unreadable $number"
        printf '%s' "$rv_path"
    elif ! [ -O "$rv_path" ]; then
        rv_section "stranger $number"
    else
        rv_section "text $number"
        # one byte more than is taken, so that a larger file shows
        head -c 1048577 "$rv_path"
    fi
}

look_tree() {
    moving=no
    if [ -L "$rv_path" ] || ! [ -d "$rv_path" ]; then return 0; fi
    moving=yes
    rv_section "tree $number"
    disk_usage
    find "$rv_path" -print0 2>/dev/null | tr -dc '\0' | wc -c
    # a link's own permissions mean nothing; `test -r` is what GNU find has as -readable
    {
        find "$rv_path" ! -user "$id" -print0
        case $system in
            Linux*) find "$rv_path" ! -type l \( ! -readable -o -type d ! -executable \) -print0 ;;
        esac
    } 2>/dev/null | tr '\0\n' '\n?' | head -n 1
}

disk_usage() {
    du -sk "$rv_path" 2>/dev/null | {
        read -r kib _
        printf '%s ' "$((${kib:-0} * 1024))"
    }
}

# What an interrupted migration has copied needs no further room.
look_copied() {
    if [ "$moving" = no ] || ! [ -d "$rv_path" ]; then return 0; fi
    rv_section "copied $number"
    disk_usage
}

look_records() {
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

# The record of what was put there; accounts that never had a schedule are asked nothing more.
look_schedule() {
    record=$rv_scratch/.rv/schedule/record
    if [ -s "$record" ]; then
        rv_section "schedule-record $number"
        read -r kind more <"$record"
        printf '%s %s' "$kind" "$more"
        case " $value " in
            *" $kind "*) ;;
            *) value="$value $kind" ;;
        esac
    fi
    for kind in $value; do
        case $kind in
            remote-cron) look_output crontab -l ;;
            scrontab) look_output scrontab -l ;;
            sbatch-chain) look_output squeue ;;
        esac
    done
}

# look_output COMMAND...: what it prints about $kind, then how it ended and what it complained of.
look_output() {
    rv_section "schedule-$kind $number"
    exec 3>&1
    if ! command -v "$1" >/dev/null 2>&1; then
        said="there is no $1"
        status=127
    elif [ "$1" = squeue ]; then
        said=$(rv_chain 2>&1 >&3 3>&- </dev/null)
        status=$?
    else
        said=$("$@" 2>&1 >&3 3>&- </dev/null)
        status=$?
    fi
    exec 3>&-
    rv_section "schedule-$kind-end $number"
    printf '%s\n%s' "$status" "$said"
}
