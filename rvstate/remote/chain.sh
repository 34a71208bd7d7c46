#!/bin/bash
# The steps of a run that goes on in segments, each as long as the job's walltime allows: Slurm's
# requeue starts the same job again.  Sourced behind job.sh by the batch script.
#   rv_chain TOTAL LEAD SIGNAL RETRIES MOST
# RV_RUN_DIR/chain keeps `SEGMENT SPENT BEGAN CRASHES`: the number of this segment, seconds of the
# earlier ones, when it began (0 between two), failures so far.  RV_RUN_DIR/alive is touched while
# it runs, for one that is killed cannot say how long it was.
# shellcheck shell=bash
# shellcheck disable=SC2154 # rv_* come from job.sh

# rv_chain TOTAL LEAD SIGNAL RETRIES MOST: seconds in all, seconds of warning, its signal, how often
# it may fail, how many segments there are at most.
rv_chain() {
    local began=0 line
    rv_total=$1
    rv_lead=$2
    rv_retries=$4
    rv_segment=0
    rv_spent=0
    rv_crashes=0
    line=$(cat "$RV_RUN_DIR/chain" 2>/dev/null)
    # a scratch file system may lose or cut it
    if [[ $line =~ ^[0-9]+\ [0-9]+\ [0-9]+\ [0-9]+$ ]]; then
        read -r rv_segment rv_spent began rv_crashes <<<"$line"
    fi
    RV_SEGMENT=$rv_segment
    RV_ELAPSED=$rv_spent
    if ! rv_visiting; then
        if [ "$began" -gt 0 ]; then rv_spent=$((rv_spent + $(rv_lived "$began"))); fi
        rv_segment=$((rv_segment + 1))
        RV_SEGMENT=$rv_segment
        RV_ELAPSED=$rv_spent
        rv_bounded "$5"
        # only now: who did not come so far never hears the warning
        rv_warning=$3
        rv_warned_at=
        rm -f "$RV_RUN_DIR/.stopped" "$RV_RUN_DIR/.answered"
        rv_began=$(date +%s)
        rv_keep_chain "$rv_began" || rv_give_up "cannot write to $RV_RUN_DIR (is scratch full?)"
        rv_clockwork "$$" </dev/null >/dev/null 2>&1 &
        rv_clockwork_child=$!
        rv_say_chain "segment $rv_segment begins, $(rv_clock_time "$rv_spent") of $(rv_clock_time "$rv_total") are done"
    fi
    RV_TOTAL=$rv_total
    export RV_SEGMENT RV_ELAPSED RV_TOTAL
}

# rv_lived BEGAN: seconds of a segment that could not say when it ended.
rv_lived() {
    local last
    last=$(stat -c %Y "$RV_RUN_DIR/alive" 2>/dev/null || echo 0)
    echo $((last > $1 ? last - $1 : 0))
}

# rv_bounded MOST: whatever goes wrong, it does not go on for ever.
rv_bounded() {
    if [ "$rv_segment" -gt "$1" ]; then
        rv_give_up "this run was begun $1 times, which is more than it needs; look at its log, then submit it again"
    fi
    if rv_used_up; then rv_over; fi
}

# rv_used_up: whether what is left would not be worth a segment.
rv_used_up() {
    [ $((rv_total - rv_spent)) -le "$rv_lead" ]
}

# rv_over: the total time is used up.
rv_over() {
    rv_say_chain "the total time of $(rv_clock_time "$rv_total") is used up after $rv_segment segments"
    rv_record 124 total
    exit 124
}

# rv_keep_chain BEGAN: keep the numbers, whole or not at all.
rv_keep_chain() {
    printf '%s %s %s %s\n' "$rv_segment" "$rv_spent" "$1" "$rv_crashes" >"$RV_RUN_DIR/.chain" &&
        mv "$RV_RUN_DIR/.chain" "$RV_RUN_DIR/chain"
}

rv_say_chain() {
    printf 'rvstate: %s\n' "$1" >&2
}

# rv_clock_time SECONDS: as H:MM:SS.
rv_clock_time() {
    printf '%d:%02d:%02d' $(($1 / 3600)) $(($1 / 60 % 60)) $(($1 % 60))
}

# rv_clockwork SHELL: tell that it lives; and give the warning where the total time, not the job's,
# comes to its end.
rv_clockwork() {
    local left
    trap - TERM INT HUP USR1 USR2
    while :; do
        touch "$RV_RUN_DIR/alive"
        left=$((rv_began + rv_total - rv_spent - rv_lead - $(date +%s)))
        if [ "$left" -le 0 ]; then
            kill -s "$rv_warning" "$1"
            left=86400
        fi
        sleep $((left < 30 ? left : 30))
        kill -0 "$1" 2>/dev/null || return 0
    done
}

# rv_heard SIGNAL: it was passed on to the program.
rv_heard() {
    case $1 in
        "$rv_warning") rv_warn ;;
        TERM)
            # at once, for the kill may come before the program has ended
            rv_answer </dev/null &
            rv_answer_child=$!
            ;;
    esac
}

# rv_answer: where another job takes the place at a site that would cancel this one, have it begun
# again.
rv_answer() {
    trap '' TERM INT HUP USR1 USR2
    if ! rv_cancelled && rv_preempted && timeout 20 scontrol requeue "$RV_JOB_ID" 2>/dev/null; then
        : >"$RV_RUN_DIR/.answered"
    fi
}

# rv_warn: the warning was passed on; from now on the program has until shortly before the end.
rv_warn() {
    local end now left
    [ -z "$rv_warned_at" ] || return 0
    now=$(date +%s)
    rv_warned_at=$now
    end=$(SLURM_TIME_FORMAT=%s timeout 10 squeue --noheader --jobs="$RV_JOB_ID" --format=%e 2>/dev/null)
    case $end in '' | *[!0-9]*) end=$((now + rv_lead)) ;; esac
    left=$((rv_began + rv_total - rv_spent))
    if [ "$left" -lt "$end" ]; then end=$left; fi
    left=$((end - now))
    # what comes behind it takes some seconds of a login node that is busy
    left=$((left > 80 ? left - 40 : left / 2))
    rv_stopper "$((left > 1 ? left : 1))" </dev/null &
    rv_stopper_child=$!
}

# rv_stopper SECONDS: end a program that did not end by itself.
rv_stopper() {
    trap - TERM INT HUP USR1 USR2
    sleep "$1"
    : >"$RV_RUN_DIR/.stopped"
    rv_say_chain "the program has not ended after the warning and is ended now"
    rv_end_program TERM
    sleep 10
    rv_end_program KILL
    # an srun that nobody answers any more would hold the job up to its limit
    sleep 10
    kill -s KILL "$rv_child" 2>/dev/null
}

# rv_end_program SIGNAL: to all that came of the program.
rv_end_program() {
    local pid
    if [ "$rv_deliver" = rv_to_nodes ]; then
        scancel --signal="$1" "$RV_JOB_ID.0" 2>/dev/null && return
    fi
    # the children first, for they are found by their parents
    while read -r pid _; do
        kill -s "$1" "$pid" 2>/dev/null
    done < <(rv_tree "$rv_child" | tac)
}

# rv_segment_ends STATUS: what becomes of the run; comes back where it is over.
rv_segment_ends() {
    local why=
    kill "$rv_clockwork_child" ${rv_stopper_child:+"$rv_stopper_child"} 2>/dev/null
    rv_spent=$((rv_spent + $(date +%s) - rv_began))
    rv_keep_chain 0
    if rv_cancelled; then return 0; fi
    [ -z "${rv_answer_child:-}" ] || wait "$rv_answer_child"
    # Slurm has put it back by itself, or because it was asked just now
    if [ -e "$RV_RUN_DIR/.answered" ] || rv_requeued; then
        rv_say_chain "segment $rv_segment was interrupted by Slurm, which starts the job again"
        exit "$1"
    fi
    if [ -n "$rv_warned_at" ] && rv_ended_by_warning "$1"; then
        why="time"
    elif [ "$1" = 0 ]; then
        return 0
    elif [ -n "$rv_terminated" ] && [ -z "$rv_warned_at" ]; then
        return 0
    fi
    rm -f "$RV_RUN_DIR/.stopped"
    if [ -z "$why" ]; then
        rv_crashes=$((rv_crashes + 1))
        if [ "$rv_crashes" -gt "$rv_retries" ]; then return 0; fi
        rv_say_chain "segment $rv_segment failed with exit code $1; that was failure $rv_crashes of $rv_retries that may be tried again"
    fi
    if rv_used_up; then rv_over; fi
    rv_keep_chain 0
    rv_next "$1"
}

# rv_ended_by_warning STATUS: whether it saved and ended, or was ended: by the warning itself, by us.
# Who has no handler and ends well all the same, in time, is done.
rv_ended_by_warning() {
    if [ "$1" = 0 ] && [ -n "$rv_listened" ]; then return 0; fi
    [ -e "$RV_RUN_DIR/.stopped" ] || [ "$1" = $((128 + $(kill -l "$rv_warning"))) ]
}

# rv_preempted: whether another job takes the place, at a site that does not put this one back.
rv_preempted() {
    timeout 10 scontrol show job "$RV_JOB_ID" 2>/dev/null |
        grep -q -E -e 'JobState=PREEMPTED' -e 'PreemptTime=[0-9]'
}

# rv_next STATUS: have Slurm start the job again; `stop` leaves a mark before it cancels, and who
# comes between is cancelled once more.
rv_next() {
    local said
    # a controller that is down for a moment
    for turn in 1 2 5 0; do
        if said=$(timeout 20 scontrol requeue "$RV_JOB_ID" 2>&1); then
            rv_say_chain "segment $rv_segment ends after $(rv_clock_time "$rv_spent") in all; the next one follows"
            if rv_cancelled; then scancel "$RV_JOB_ID"; fi
            exit 0
        fi
        rv_cancelled && return 0
        sleep "$turn"
    done
    rv_say_chain "segment $rv_segment ends, and Slurm does not start the next one: $said"
    rv_say_chain "  → rvstate rerun goes on from the checkpoints of this name."
    rv_record "$(($1 == 0 ? 1 : $1))"
    exit "$(($1 == 0 ? 1 : $1))"
}
