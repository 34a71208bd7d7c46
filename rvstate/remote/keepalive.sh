#!/bin/sh
# Keep files young that the site's purge would take, or say how old they are.
#   main ACTION SCRATCH_TEMPLATE HOME CLOCK DAYS QUEUE VICTIMS CACHE...
# ACTION: touch; report, which changes nothing; count, a report whose sum is kept; or recall, which
# says what is known of earlier runs and of the schedule, and walks nowhere.
# CLOCK: atime, mtime, atime-or-ctime (the younger counts) or atime-and-mtime (the older counts).
# DAYS: the site's limit; what is past half of it is at risk.  QUEUE: a command line that lists the
# user's jobs, their runs' ids somewhere; empty where there is none.  VICTIMS: the site's own list of
# what will be purged, as a command line, or empty.  CACHE: a directory below SCRATCH/.cache.
#
# Only what belongs to the user is touched, below .rv, rv-workspaces and the caches; links are never
# followed, nothing is created.  Environments and snapshots that nothing needs any more are left to
# the purge.  What was touched is young, so a run that was interrupted is simply run again.
# Everything streams: memory does not grow with the tree.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front
# shellcheck disable=SC2034 # some variables are for the scripts in front

main() {
    action=$1
    rv_account "$2" "$3"
    clock=$4
    days=$5
    queue=$6
    victims=$7
    shift 7
    rv=$rv_scratch/.rv
    kept=$rv/keepalive
    uid=$(id -u)
    # the file server and other users come first
    renice -n 19 -p $$ >/dev/null 2>&1
    ionice -c 3 -p $$ >/dev/null 2>&1
    if [ "$action" = recall ]; then
        printf 'now %s\n' "$(date +%s)"
        recall
        return 0
    fi
    clockwork || return 1
    real=$(cd -P -- "$rv_scratch" 2>/dev/null && pwd -P) ||
        rv_fail "there is no $rv_scratch, or it may not be entered" || return 1
    needed
    printf 'now %s\n' "$(date +%s)"
    case $action in
        touch) touch_all "$@" ;;
        report) report "$@" ;;
        count) count "$@" ;;
        *) rv_fail "keepalive: unknown action $action" ;;
    esac
}

# Set stale, what find asks, and flags, what touch renews.
clockwork() {
    half=$((days * 720))
    case $clock in
        atime) stale="-amin +$half" flags=-ach ;;
        mtime) stale="-mmin +$half" flags=-mch ;;
        atime-or-ctime) stale="-amin +$half -cmin +$half" flags=-ach ;;
        atime-and-mtime) stale="( -amin +$half -o -mmin +$half )" flags=-ch ;;
        *) rv_fail "no file can be kept young by the clock $clock" || return 1 ;;
    esac
    # what vanishes under the walk is no trouble; only GNU find has a word for it
    race=-ignore_readdir_race
    gnu=yes
    if ! find / -prune $race >/dev/null 2>&1; then race='' gnu=no; fi
}

# touch_all CACHE...: renew the dates of what is past half of the limit, and stamp that it is done.
# Says `found N`, `failed N`, `troubles N` and the first few, or `busy HOST PROCESS`.
touch_all() {
    alone
    case $? in
        0) ;;
        2) return 0 ;;
        *) return 1 ;;
    esac
    if ! touch "$flags" -- "$kept/nothing" 2>/dev/null || [ -e "$kept/nothing" ]; then
        rv_fail "this node's touch has not both -c and -h, so nothing was touched" || return 1
    fi
    said=$(walk "$@")
    printf '%s\n' "$said"
    troubles=$(printf '%s\n' "$said" | sed -n 's/^troubles //p')
    # an old file's date can be renewed also where there is no room for a new one
    if [ "$troubles" = 0 ] && ! told=$(touch -- "$kept/success" 2>&1); then
        rv_fail "all is done, but the date of it could not be kept: ${told##*: }" || return 1
    fi
    remember
}

# Walk and touch.  Each file found is one byte on 5, each complaint a line on 3.
walk() {
    exec 4>&1
    {
        { start account environments workspaces "$@" | spread | workers >/dev/null; } 2>&3 5>&1 |
            { printf 'found %s\n' "$(($(wc -c)))" >&4; }
    } 3>&1 | complaints
}

# start PLACE...: the paths at which the places begin, each ended by NUL.
start() {
    for place; do points "$place"; done
}

# Of the paths that come in: the directories four levels down, which environments and caches have
# many of, and the stale files above them; so that several finds can share the work.
spread() {
    if [ "$gnu" = no ]; then
        cat
        return
    fi
    # shellcheck disable=SC2016 # expanded there
    xargs -0 -r sh -c '
        uid=$1 stale=$2 device=$3
        shift 3
        set -f
        foreign="-ignore_readdir_race -xdev -type d ! -user $uid -prune -o"
        find "$@" -maxdepth 4 $foreign \( -type f -o -type l \) -user "$uid" $stale -print0
        # a mount point is listed though not entered; what is amiss the first find has said
        find "$@" -mindepth 4 -maxdepth 4 $foreign -type d -printf "%D %p\0" 2>/dev/null |
            sed -z -n "s/^$device //p"
    ' sh "$uid" "$stale" "$(stat -c %d "$rv_scratch")"
}

# Two at a time: of the trees that come in, touch the user's own files past half of the limit.
workers() {
    # shellcheck disable=SC2016 # expanded there
    xargs -0 -r -n 100 -P 2 sh -c '
        uid=$1 race=$2 stale=$3 flags=$4
        shift 4
        set -f
        set -- "$@" $race -xdev -type d ! -user "$uid" -prune -o \
            \( -type f -o -type l \) -user "$uid" $stale
        if [ -n "$race" ]; then
            { find "$@" -print0 -fprintf /dev/fd/5 . || [ "$?" = 1 ] ||
                echo "find: ended early" >&2; } |
                xargs -0 -r touch "$flags" -- || [ "$?" = 123 ] || echo "xargs: ended early" >&2
        else
            find "$@" -exec sh -c "touch \"\$0\" -- \"\$@\"; printf \"%*s\" \$# \"\" >&5" "$flags" {} +
        fi
        exit 0
    ' sh "$uid" "$race" "$stale" "$flags" || echo "xargs: ended early" >&2
}

# Of what programs say about files: how much it is, and the first few; what vanished meanwhile
# needs no keeping.
complaints() {
    awk '/No such file or directory$/ { next }
        /^touch: / { failed++ }
        { if (n++ < 5) first = first "trouble " substr($0, 1, 300) "\n" }
        END { printf "%sfailed %d\ntroubles %d\n", first, failed, n }'
}

# One at a time: take the lock; 2 and `busy HOST PROCESS` where another one is at work.
alone() {
    (umask 077 && mkdir -p "$kept") 2>/dev/null
    [ -d "$kept" ] ||
        rv_fail "$kept cannot be made: is scratch full, or not converged yet?" || return 1
    rv_lock "$rv/keepalive.lock" 0 2>/dev/null && return 0
    if ! [ -L "$rv_lockfile" ]; then
        # no room for a lock; touching needs none, so the home lends a place for it
        rv_lock "$rv_home/.rvstate-keepalive.lock" 0 2>/dev/null && return 0
        [ -L "$rv_lockfile" ] ||
            rv_fail "neither $rv nor $rv_home has room for a lock; free some space" || return 1
    fi
    # shellcheck disable=SC2046 # the owner in words
    set -- $(readlink "$rv_lockfile" 2>/dev/null)
    printf 'busy %s %s\n' "${1:-?}" "${3:-?}"
    return 2
}
