#!/bin/sh
# Put what runs keepalive day by day in place, or take it out.
#   main LOCK SECONDS DIR KIND TIME PROGRAM (VERB WHAT EXPECTED TEXT)...
# DIR is where it is kept; KIND what is to run it, - for nothing; TIME its time, or -; PROGRAM what
# it runs, in the escapes of printf's %b.
# VERB: remove or install, removals first.  WHAT: remote-cron or scrontab, whose table has the
# SHA-256 EXPECTED and becomes TEXT, in %b's escapes, too; or sbatch-chain.
# A table that cannot be read is never written: "no crontab for USER" alone means an empty one.
# DIR/record names what is there, from before it is installed until after it is removed, so that a
# run that was killed is found by the next look.
# Says "done 0" or "failed 0 REASON".
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_lock "$1" "$2" || return 1
    shift 2
    reason=$(change "$@" 2>&1)
    status=$?
    rv_told 0 "$status" "$reason"
    return "$status"
}

change() {
    dir=$1
    kind=$2
    time=$3
    program=$4
    shift 4
    if [ -L "$dir" ]; then rv_fail "$dir is a link that rvstate did not make" || return 1; fi
    (umask 077 && mkdir -p "$dir") || return 1
    while [ $# -ge 4 ]; do
        if [ "$1" = install ]; then keep || return 1; fi
        case $2 in
            remote-cron) table crontab "$3" "$4" || return 1 ;;
            scrontab) table scrontab "$3" "$4" || return 1 ;;
            sbatch-chain) "chain_$1" || return 1 ;;
            *) rv_fail "schedule: unknown kind $2" || return 1 ;;
        esac
        shift 4
    done
    if [ "$kind" = - ]; then
        # the record last; what somebody else put there stays
        rm -f "$dir/run" "$dir/path" "$dir/log" "$dir/last" "$dir"/*.rvstate-tmp-* "$dir/record" ||
            return 1
        rmdir "$dir" 2>/dev/null || [ -d "$dir" ]
    fi
}

# The program and what it needs to know, then the record.
keep() {
    printf '%b' "$program" | rv_store "$dir/run" 700 || return 1
    printf '%s\n' "$PATH" | rv_store "$dir/path" 600 || return 1
    printf '%s %s %s\n' "$kind" "$(uname -n)" "$time" | rv_store "$dir/record" 600
}

# table PROGRAM EXPECTED TEXT
table() {
    text=$(printf '%b.' "$3")
    text=${text%.}
    current "$1" || return 1
    if [ "$found" = "$text" ]; then return 0; fi
    [ "$(printf '%s' "$found" | digest)" = "$2" ] || rv_fail \
        "what $1 holds changed since the look and was left alone; run converge again" || return 1
    if [ -n "$text" ]; then
        printf '%s' "$text" | "$1" - || rv_fail "$1 did not take the new table" || return 1
    else
        "$1" -r || rv_fail "$1 -r did not remove the empty table" || return 1
    fi
    current "$1" || return 1
    [ "$found" = "$text" ] || rv_fail "$1 took a table and shows another one; look at it with $1 -l"
}

# current PROGRAM: set found to its table.
current() {
    # kept in memory: a file on a full scratch would be cut short
    found=$("$1" -l 2>"$dir/said" </dev/null; printf '.%s' "$?")
    status=${found##*.}
    found=${found%.*}
    said=$(cat "$dir/said")
    rm -f "$dir/said"
    [ "$status" != 0 ] || return 0
    case ${found%"$rv_newline"}$said in
        *"$rv_newline"*) ;;
        'no crontab for '* | 'crontab: no crontab for '* | 'scrontab: no crontab for '*)
            found=
            return 0
            ;;
    esac
    rv_fail "$1 -l failed, so nothing was written: ${said:-$status}"
}

digest() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi | sed 's/ .*//'
}

chain_install() {
    sh "$dir/run" submit "$dir" >"$dir/log" 2>&1 ||
        rv_fail "the chain could not be started: $(tail -n 1 "$dir/log")"
}

chain_remove() {
    jobs=$(rv_chain) || rv_fail "the queue does not answer, so the chain was left alone" || return 1
    for job in $(printf '%s\n' "$jobs" | awk '{ print $1 }'); do
        scancel "$job" || return 1
    done
}
