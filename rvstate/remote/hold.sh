#!/bin/sh
# Hold a job's allocation for people who enter it: the command of a job of `rvstate up`.
#   hold.sh RUN_DIR SECONDS end|keep
# Ends when the last shell was left, or SECONDS after nobody has been inside without that: nobody
# came, or the connection went away.  With `keep` a shell that was left ends nothing.
# RUN_DIR/hold/in.NODE.PID marks somebody who is inside on this node, RUN_DIR/hold/left a shell that
# was left (inside.sh); RUN_DIR/hold/state tells `WORD SECONDS_SINCE_1970 NODE`: `ready`, `lost` (the
# time is when it ends), `inside`, `kept` (the time is when it began).
# shellcheck shell=sh

hold() {
    place=$1/hold
    patience=$2
    mode=$3
    node=$(uname -n)
    # a requeued job begins anew
    rm -rf "$place" && mkdir -m 700 "$place" || return 1
    word=''
    gone=no
    now=$(date +%s)
    until=$((now + patience))
    tell ready "$until" || return 1
    while sleep 1; do
        now=$(date +%s)
        if anybody; then
            rm -f "$place/left"
            gone=no
            tell inside "$now" || return 1
        elif [ -e "$place/left" ] && [ "$mode" = end ]; then
            return 0
        elif [ -e "$place/left" ]; then
            tell kept "$now" || return 1
        else
            if [ "$word" = inside ] || [ "$gone" = yes ]; then
                gone=no
                until=$((now + patience))
                tell lost "$until" || return 1
            fi
            if [ "$now" -ge "$until" ]; then
                printf 'rvstate: nobody was inside for %s seconds, so the allocation ends\n' "$patience" >&2
                return 0
            fi
        fi
    done
}

anybody() {
    for mark in "$place/in.$node".*; do
        [ -e "$mark" ] || continue
        if kill -0 "${mark##*.}" 2>/dev/null; then return 0; fi
        # also somebody who came and went between two looks
        rm -f "$mark"
        gone=yes
    done
    return 1
}

# tell WORD TIME: once for each change, and never half.
tell() {
    if [ "$word" = "$1" ]; then return 0; fi
    word=$1
    printf '%s %s %s\n' "$word" "$2" "$node" >"$place/.state" && mv -f "$place/.state" "$place/state"
}

hold "$@"
