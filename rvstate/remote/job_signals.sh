#!/bin/bash
# How a job hands signals on to the user's program, and to those of its children that wait for them; one
# file with job.sh on the cluster.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the other steps of a job have these

# The program gets the signal first.  Where it takes its time, what there is is kept already: after
# TERM Slurm kills within KillWait (30 s by default).
rv_pass_on() {
    local turn
    rv_signalled=yes
    [ "$1" != TERM ] || rv_terminated=yes
    if [ -z "$rv_child" ]; then
        rv_early="$rv_early $1"
        return 0
    fi
    "$rv_deliver" "$1"
    if [ -n "$rv_warning" ]; then rv_heard "$1"; fi
    [ "$1" = TERM ] && [ "${#rv_kept[@]}" -gt 0 ] || return 0
    for turn in 1 2 3 4; do
        kill -0 "$rv_child" 2>/dev/null || return 0
        sleep "0.$turn" 2>/dev/null || sleep 1
    done
    rv_copy_kept quiet
}

# rv_to_child SIGNAL: to the program; rv_deliver names what is done with a signal.
rv_to_child() {
    case $1 in
        USR1 | USR2) rv_to_catchers "$1" ;;
        *) kill -s "$1" "$rv_child" 2>/dev/null ;;
    esac
}

# rv_to_catchers SIGNAL: to the programs that wait for it; all others would die of it: shells,
# launchers.  A process that is a copy of one that got it (a data loader's) is not asked to save, too.
rv_to_catchers() {
    local pid parent signal told=' '
    signal=$(kill -l "$1")
    if ! [ -r /proc/self/status ]; then
        kill -s "$1" "$rv_child" 2>/dev/null
        return
    fi
    # who is told may be gone at once, so all are chosen first
    while read -r pid parent; do
        rv_catches "$pid" "$signal" || continue
        case $told in
            *" $parent "* | *" -$parent "*)
                # a copy of a copy is one, too
                if rv_same "$pid" "$parent"; then pid=-$pid; fi
                ;;
        esac
        told="$told$pid "
    done < <(rv_tree "$rv_child")
    for pid in $told; do
        case $pid in -*) ;; *) kill -s "$1" "$pid" 2>/dev/null ;; esac
    done
}

# rv_catches PID NUMBER: whether a process has a handler for the signal (proc(5), SigCgt).
rv_catches() {
    local mask
    mask=$(sed -n 's/^SigCgt:[^0-9a-f]*//p' "/proc/$1/status" 2>/dev/null)
    [ -n "$mask" ] && (((16#$mask >> ($2 - 1)) & 1))
}

# rv_same PID PID: whether both are one program, started once.
rv_same() {
    cmp -s "/proc/$1/cmdline" "/proc/$2/cmdline" && cmp -s "/proc/$1/environ" "/proc/$2/environ"
}

# rv_tree PID: the process and all that came of it, parents first, each with its parent.
rv_tree() {
    ps -A -o pid= -o ppid= | awk -v top="$1" '
        { children[$2] = children[$2] " " $1; parent[$1] = $2 }
        END {
            list[1] = top
            last = 1
            for (at = 1; at <= last; at++) {
                print list[at], parent[list[at]] + 0
                count = split(children[list[at]], found, " ")
                for (i = 1; i <= count; i++) list[++last] = found[i]
            }
        }'
}
