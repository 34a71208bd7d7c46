#!/bin/bash
# How a job waits for the user's program and hands signals on to it, and to those of its children that
# wait for them; one file with job.sh on the cluster.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the other steps of a job have these

# rv_await STEP...: run it beside this shell, which hands signals on; rv_status is how it ended.
rv_await() {
    local signal
    for signal in TERM INT HUP USR1 USR2; do
        # shellcheck disable=SC2064 # the name now, not then
        trap "rv_pass_on $signal" "$signal"
    done
    rv_child=
    rv_early=
    # whether anybody was told who has a handler
    rv_listened=
    rv_start "$@"
    rv_child=$rv_step_pid
    # what came before its number was known
    for signal in $rv_early; do rv_pass_on "$signal"; done
    rv_wait
}

# rv_start STEP...: start it beside this shell, deaf to no signal; rv_step_pid is its number.  What
# bash's `wait` should say is lost for ever where a trap is run at the very moment in which a program
# ends, as one does that saves and ends when it is warned.  So a second shell waits for it, which has
# no traps, and tells this one through a pipe without a name.
rv_start() {
    local pipe
    pipe=$(mktemp -u "${TMPDIR:-/tmp}/rvstate-pipe.XXXXXXXX")
    if ! mkfifo -m 600 "$pipe" 2>/dev/null; then
        pipe=$RV_RUN_DIR/.pipe-$(uname -n)-$$
        mkfifo -m 600 "$pipe" || rv_give_up "cannot make a pipe in ${TMPDIR:-/tmp}, nor in $RV_RUN_DIR"
    fi
    exec 9<>"$pipe"
    rm -f "$pipe"
    rv_attend "$@" &
    rv_attendant=$!
    rv_step_pid=
    until [ -n "$rv_step_pid" ]; do read -r rv_step_pid <&9; done
}

rv_attend() {
    trap '' TERM INT HUP USR1 USR2
    rv_begin_step "$@" &
    wait "$!"
    printf '%s\n' "$?" >&9
}

# Its number is told when signals count again, so that none is lost between.
rv_begin_step() {
    trap - TERM INT HUP USR1 USR2
    # shellcheck disable=SC2016 # older shells cannot tell the number of a subshell
    printf '%s\n' "$(exec sh -c 'echo "$PPID"')" >&9
    exec 9>&-
    "$@"
}

# rv_wait: rv_status is how what was started has ended.
rv_wait() {
    local told=
    # a signal ends `wait` early; the program may still be saving
    while :; do
        rv_signalled=
        wait "$rv_attendant"
        rv_status=$?
        [ -n "$rv_signalled" ] || break
    done
    until read -r -t 1 told <&9 && [ -n "$told" ]; do
        # who was killed tells nothing
        kill -0 "$rv_attendant" 2>/dev/null || break
    done
    exec 9>&-
    rv_status=${told:-$rv_status}
}

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
        rv_listened=yes
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
    case $told in *[0-9]*) rv_listened=yes ;; esac
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
