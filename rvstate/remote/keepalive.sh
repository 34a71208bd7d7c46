#!/bin/sh
# Keep files young that the site's purge would take, or say how old they are.
#   main ACTION SCRATCH_TEMPLATE HOME CLOCK DAYS QUEUE VICTIMS CACHE...
# ACTION: touch; report, which changes nothing; or count, a report whose sum is kept.
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

# What the user's jobs need: set jobs to the queue and the environments in its runs' batch scripts;
# asked is no where the queue does not answer, and everything counts as needed then.
needed() {
    jobs=''
    asked=yes
    [ -n "$queue" ] || return 0
    set -- "$rv"/envs/*/.generations/*/* "$rv_scratch"/rv-workspaces/*/*/snapshots/*
    # where there is nothing to decide about the scheduler is not asked
    if ! [ -e "$1" ] && ! [ -e "$2" ] && [ $# = 2 ]; then return 0; fi
    # the command line that is given says $rv_user
    jobs=$(eval "$queue" 2>/dev/null) || asked=no
    for id in $(printf '%s\n' "$jobs" | grep -o '[0-9]\{8\}-[0-9]\{6\}-[0-9a-f]\{8\}' | sort -u); do
        jobs=$jobs$rv_newline$(grep -s '^rv_environment ' "$rv/runs/$id/job.sh")
    done
}

# Whether no directory on the way from scratch to $path is a link.
straight() {
    above=${path%/*}
    while [ "$above" != "$rv_scratch" ]; do
        if [ -L "$above" ]; then return 1; fi
        above=${above%/*}
    done
}

# points PLACE: the paths at which one place begins, each ended by NUL.
points() {
    name=$1
    set --
    case $name in
        account)
            if [ -L "$rv" ]; then return 0; fi
            for path in "$rv"/*; do
                case ${path##*/} in
                    # the last one's dates are facts
                    envs | lock* | keepalive*) ;;
                    *) if [ -e "$path" ]; then set -- "$@" "$path"; fi ;;
                esac
            done
            ;;
        environments)
            current=''
            for path in "$rv"/envs/*/*; do
                if ! [ -L "$path" ] || ! straight; then continue; fi
                set -- "$@" "$path"
                target=$(readlink "$path")
                case $target in
                    /*) ;;
                    *) target=${path%/*}/$target ;;
                esac
                current=$current$rv_newline$target
            done
            for path in "$rv"/envs/*/.generations/*/*; do
                if [ -d "$path" ] && straight && in_use; then set -- "$@" "$path"; fi
            done
            ;;
        workspaces)
            for path in "$rv_scratch"/rv-workspaces/*/*/*; do
                if [ -e "$path" ] && [ "${path##*/}" != snapshots ] && straight; then set -- "$@" "$path"; fi
            done
            for path in "$rv_scratch"/rv-workspaces/*/*/snapshots/*; do
                if [ -d "$path" ] && straight && wanted; then
                    set -- "$@" "$path"
                    manifest=${path%/*}/.${path##*/}.manifest
                    if [ -e "$manifest" ]; then set -- "$@" "$manifest"; fi
                fi
            done
            ;;
        *)
            path=$rv_scratch/.cache/$name
            if [ -d "$path" ] && ! [ -L "$path" ] && straight; then set -- "$path"; fi
            ;;
    esac
    [ $# -gt 0 ] || return 0
    printf '%s\0' "$@"
}

# Whether the generation $path is a branch's newest, or a job in the queue has it.
in_use() {
    [ "$asked" = yes ] || return 0
    case $current$rv_newline in
        *"$rv_newline$path$rv_newline"*) return 0 ;;
    esac
    case $jobs in
        *"$path"*) return 0 ;;
    esac
    return 1
}

# Whether a job in the queue needs the snapshot $path, or the user has it kept.
wanted() {
    [ "$asked" = yes ] || return 0
    id=$(printf '%s' "${path##*/}" | sed 's/.*-\([0-9]\{8\}-[0-9]\{6\}-[0-9a-f]\{8\}\)$/\1/')
    if [ -e "$rv/runs/$id/keep" ]; then return 0; fi
    case $jobs in
        *"$id"*) return 0 ;;
    esac
    return 1
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

# Keep how this run went, for `status`; where there is no room, what was kept stays.
remember() {
    {
        printf 'ended %s\naction %s\n' "$(date +%s)" "$action"
        printf '%s\n' "$said" | grep -E '^(found|risk|troubles|trouble) '
    } | rv_store "$kept/last" 600 2>/dev/null || printf 'unkept\n'
}

# report CACHE...: "place FILES BYTES RISK OLDEST VICTIMS NAME" for each place, OLDEST in seconds
# since 1970; then what is known of earlier runs.
report() {
    limit=$(($(date +%s) - half * 60))
    listed=$(doomed "$@")
    exec 4>&1
    for place in account environments workspaces "$@"; do
        start "$place" | dates | awk -v limit="$limit" -v clock="$clock" '
            { age = clock == "mtime" ? $2 : $1; files++; bytes += $4 }
            clock == "atime-or-ctime" && $3 > age || clock == "atime-and-mtime" && $2 < age {
                age = clock == "atime-or-ctime" ? $3 : $2 }
            age < limit { risk++ }
            !oldest || age < oldest { oldest = age }
            END { printf "place %d %.0f %d %d", files, bytes, risk, oldest }' >&4
        number=$(printf '%s\n' "$listed" | sed -n "s/ $place\$//p")
        printf ' %s %s\n' "${number:-0}" "$place" >&4
    done 2>&1 | complaints
    exec 4>&-
    printf '%s\n' "$listed" | sed -n 's/^\([0-9]*\) \.$/victims \1/p'
    if [ -e "$kept/success" ]; then printf 'success %s\n' "$(date_of "$kept/success")"; fi
    sed 's/^/last /' "$kept/last" 2>/dev/null
    return 0
}

# A report whose sum is kept as well.
count() {
    said=$(report "$@")
    printf '%s\n' "$said"
    said=$(printf '%s\n' "$said" | awk '
        $1 == "place" { risk += $4 }
        /^troubles? / { print }
        END { printf "risk %d\n", risk }')
    (umask 077 && mkdir -p "$kept") && remember
}

# "ATIME MTIME CTIME BYTES" for each of the user's own files in the trees whose names come in.
dates() {
    # shellcheck disable=SC2016 # expanded there
    xargs -0 sh -c '
        uid=$1 race=$2 gnu=$3
        shift 3
        [ $# -gt 0 ] || exit 0
        if [ "$gnu" = yes ]; then
            find "$@" $race -xdev -type d ! -user "$uid" -prune -o \
                \( -type f -o -type l \) -user "$uid" -printf "%A@ %T@ %C@ %s\n"
        else
            find "$@" -xdev -type d ! -user "$uid" -prune -o \
                \( -type f -o -type l \) -user "$uid" -exec stat -f "%a %m %c %z" {} +
        fi
    ' sh "$uid" "$race" "$gnu"
}

date_of() {
    stat -c %Y "$1" 2>/dev/null || stat -f %m "$1"
}

# doomed PLACE...: what the site's own list says will be purged, "N PLACE", and in all "N .".
doomed() {
    [ -n "$victims" ] || return 0
    rv_expand "$victims"
    # without the tool nobody knows, which is not none
    command -v "${rv_text%% *}" >/dev/null 2>&1 || return 0
    prefixes=environments=/.rv/envs/${rv_newline}account=/.rv/${rv_newline}workspaces=/rv-workspaces/
    for name; do prefixes=$prefixes$rv_newline$name=/.cache/$name/; done
    # the list names scratch as the user or as the file server does
    sh -c "$rv_text" 2>/dev/null </dev/null |
        RV_OWN=$rv_scratch RV_REAL=$real RV_PREFIXES=$prefixes awk '
        BEGIN { own = ENVIRON["RV_OWN"]; other = ENVIRON["RV_REAL"]
            many = split(ENVIRON["RV_PREFIXES"], line, "\n")
            for (i = 1; i <= many; i++) { at = index(line[i], "=")
                name[i] = substr(line[i], 1, at - 1); path[i] = substr(line[i], at + 1) } }
        { total += index($0, own "/") > 0 || index($0, other "/") > 0
          for (i = 1; i <= many; i++)
              if (index($0, own path[i]) || index($0, other path[i])) { count[i]++; break } }
        END { for (i = 1; i <= many; i++) printf "%d %s\n", count[i], name[i]
            printf "%d .\n", total }'
}
