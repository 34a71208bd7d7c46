#!/bin/sh
# Take one snapshot and submit the stages of a pipeline, each behind those that it follows.  Once begun
# it finishes, connection or not.
#   main LOCK SECONDS ROOT STATE SNAPSHOT HOW KEEP_AFTER RUNS DATA QUEUE HISTORY CANCEL COUNT
#        (STAGE RUN ENVIRONMENT FOLLOWS)... SUBMITTER...
# LOCK to KEEP_AFTER, QUEUE, HISTORY and SUBMITTER: as for submit.sh, whose steps these are.  RUNS: the
# directory of runs.  DATA: the pipeline's directory.  CANCEL: the words in front of a job to end it.
# For each of COUNT stages, none in front of one that it follows: its name, its run's id, the generation
# that it needs or empty, and the ids of runs among these that it follows, with blanks.
# The payload is a tar archive: RUN/job.sh, RUN/receipt.json, and what else the run brings along.
# A stage that was submitted already is only told its job, so asking again is safe.  Where the
# scheduler refuses one, those that were submitted before it are ended: all of them or none.
# Says `submitted RUN JOB` or `found RUN JOB` for each; or `stale`, `unbuilt`, or
# `busy STAGE RUN JOB` where another run of a stage waits or runs, and submits nothing.
# shellcheck shell=sh
# shellcheck disable=SC2034 # some variables are for the steps of submit.sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, others from submit.sh, which travel in front

main() {
    trap '' HUP PIPE
    lock=$1
    patience=$2
    root=$3
    state=$4
    snapshot=$5
    how=$6
    keep_after=$7
    runs=$8
    data=$9
    shift 9
    queue=$1
    history=$2
    cancel=$3
    count=$4
    shift 4
    stages=''
    while [ "$count" -gt 0 ]; do
        # a path may hold blanks, so it stands last
        stages="$stages$1 $2 $(printf '%s' "${4:--}" | tr ' ' ,) ${3:--}$rv_newline"
        shift 4
        count=$((count - 1))
    done
    parts=''
    if all_known; then return 0; fi
    (umask 077 && mkdir -p "$root" "$data/.rvstate/stages") || return 1
    rv_lock "$lock" "$patience" || return 1
    trap '' HUP
    # for the command lines that are given
    rv_user=$(id -un)
    if all_known; then return 0; fi
    parcels=$root/parcels
    rm -rf "$parcels" && mkdir -m 700 "$parcels" && base64 -d >"$parcels/all" &&
        (cd "$parcels" && tar -xzmof all) || rv_fail "the stages did not arrive whole" || return 1
    # the steps of submit.sh keep their notes with a run: the first
    run=$runs/${stages#* }
    run=${run%% *}
    notes=$run
    (umask 077 && mkdir -p "$run") || return 1
    eval "$queue" >"$run/queue" || rv_fail "the scheduler does not say which jobs there are" || return 1
    active=$(awk -F '[\037 ]' '
        function ended(state) { return state ~ /^(COMPLETED|FAILED|CANCELLED|TIMEOUT|DEADLINE|OUT_OF_MEMORY|NODE_FAIL|BOOT_FAIL|PREEMPTED)$/ }
        !ended($2) && !ended($3)' "$run/queue")
    each is_free || return 0
    run=$notes
    take_it
    case $? in
        0) ;;
        2) return 0 ;;
        *) return 1 ;;
    esac
    each arrive || return 1
    each whole_environment || return 0
    submitted=''
    each begin_stage || return 1
    each submit_stage "$@" || return 1
    run=$notes
    prune
    rm -rf "$parcels" "$notes/queue"
}

# each STEP WORDS...: STEP for every stage, with stage, id, run, follows and environment set; up to the
# first that fails.
each() {
    step=$1
    shift
    # standard input is the payload's
    while read -r stage id follows environment <&4; do
        run=$runs/$id
        "$step" "$@" || return 1
    done 4<<EOT
${stages%"$rv_newline"}
EOT
    return 0
}

all_known() {
    each has_job || return 1
    each tell_job
}

has_job() {
    [ -s "$run/job" ]
}

tell_job() {
    printf 'found %s %s\n' "$id" "$(cat "$run/job")"
}

# Whether no other run of the stage waits or runs: it would write the same files.
is_free() {
    other=$(cat "$data/.rvstate/stages/$stage/run" 2>/dev/null)
    if [ -z "$other" ] || [ "$other" = "$id" ] || [ -e "$runs/$other/exit" ] ||
        ! printf '%s\n' "$active" | grep -q -F -e "$other"; then return 0; fi
    printf 'busy %s %s %s\n' "$stage" "$other" "$(cat "$runs/$other/job" 2>/dev/null)"
    return 1
}

# The snapshot, as submit.sh takes it; 2 where the code must be sent again.
take_it() {
    [ ! -d "$snapshot" ] || return 0
    copy_ahead
    if ! { take_copy || unchanged; }; then
        stale
        return 2
    fi
    if ! take_snapshot; then
        if [ -e "$run/torn" ]; then
            stale
            return 2
        fi
        rv_fail "the snapshot could not be taken (is scratch full?)"
    fi
}

# The run's own files, put in place before anything is submitted.
arrive() {
    (umask 077 && mkdir -p "$run") || return 1
    if has_job; then return 0; fi
    (cd "$parcels/$id" && tar -cf - --exclude=./job.sh --exclude=./receipt.json .) | (cd "$run" && tar -xmof -) &&
        rv_store "$run/job.sh" 700 <"$parcels/$id/job.sh" &&
        rv_store "$run/receipt.json" 600 <"$parcels/$id/receipt.json"
}

whole_environment() {
    if [ "$environment" = - ] || [ -s "$environment/.rvstate-environment" ]; then return 0; fi
    printf 'unbuilt\n'
    return 1
}

# Several stages may be one run.
begin_stage() {
    if has_job; then return 0; fi
    place=$data/.rvstate/stages/$stage
    (umask 077 && mkdir -p "$place") && printf '%s\n' "$id" | rv_store "$place/run" 600
}

submit_stage() {
    if has_job; then
        tell_job
        return 0
    fi
    # an earlier attempt may have come as far as sbatch; it says `found JOB`
    recover >"$parcels/said" || return 1
    if [ -n "$job" ]; then
        tell_job
        return 0
    fi
    waits=$(behind)
    date +%s | rv_store "$run/intent" 600 || return 1
    if ! ask_sbatch "$@" ${waits:+"--dependency=afterok$waits" --kill-on-invalid-dep=yes} "$run/job.sh"; then
        give_back
        return 1
    fi
    record
    submitted="$submitted $job"
    printf 'submitted %s %s\n' "$id" "$job"
    follow "$@"
}

# The jobs of the stages that this one follows and that have not succeeded yet, each behind a colon.
behind() {
    for other in $(printf '%s' "${follows#-}" | tr , ' '); do
        ended=
        if [ -s "$runs/$other/exit" ]; then read -r ended <"$runs/$other/exit"; fi
        if [ "${ended%% *}" != 0 ]; then printf ':%s' "$(cat "$runs/$other/job")"; fi
    done
}

# A refusal is an answer: what was submitted for this pipeline just now does not run half of it.
give_back() {
    [ ! -f "$run/intent" ] || return 0
    for job in $submitted; do
        eval "$cancel $job" >&2
    done
    rv_fail "that was stage $stage${submitted:+; the stages before it were ended again:$submitted}"
}
