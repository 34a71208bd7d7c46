#!/bin/sh
# Hold a job's allocation for people who enter it: the command of a job of `rvstate up`.
#   hold.sh RUN_DIR SECONDS end|keep [IDLE]
# Ends when the last shell was left, or SECONDS after nobody has been inside without that: nobody
# came, or the connection went away.  With `keep` a shell that was left ends nothing.
# RUN_DIR/hold/in.NODE.PID marks somebody who is inside on this node, RUN_DIR/hold/left a shell that
# was left (inside.sh); RUN_DIR/hold/state tells `WORD SECONDS_SINCE_1970 NODE`: `ready`, `lost` (the
# time is when it ends), `inside`, `kept` (the time is when it began), `idle` (somebody is inside, and
# nobody has typed anything for IDLE seconds, half an hour by default: the time is that of the last
# letter).  A laptop that vanished without a word looks like this, until the cluster notices.
# shellcheck shell=sh

hold() {
    place=$1/hold
    patience=$2
    mode=$3
    idle=${4:-1800}
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
            if [ "$typed" -gt 0 ] && [ $((now - typed)) -ge "$idle" ]; then
                tell idle "$typed" || return 1
            else
                tell inside "$now" || return 1
            fi
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

# anybody: whether somebody is inside; sets typed to when the last letter was typed in a shell, 0 where
# there is none, or somebody without a terminal.
anybody() {
    typed=0
    found=no
    for mark in "$place/in.$node".*; do
        [ -e "$mark" ] || continue
        if kill -0 "${mark##*.}" 2>/dev/null; then
            found=yes
            typing "${mark##*.}"
            continue
        fi
        # also somebody who came and went between two looks
        rm -f "$mark"
        gone=yes
    done
    [ "$found" = yes ]
}

# typing PID: move typed on to the date of the process's terminal, which is when it was read last.
typing() {
    at=$now
    case $(readlink "/proc/$1/fd/0" 2>/dev/null) in
        /dev/pts/*) at=$(stat -L -c %X "/proc/$1/fd/0" 2>/dev/null) || at=$now ;;
    esac
    if [ "$at" -gt "$typed" ]; then typed=$at; fi
}

# tell WORD TIME: once for each change, and never half.
tell() {
    if [ "$word" = "$1" ]; then return 0; fi
    word=$1
    printf '%s %s %s\n' "$word" "$2" "$node" >"$place/.state" && mv -f "$place/.state" "$place/state"
}

hold "$@"
