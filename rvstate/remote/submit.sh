#!/bin/sh
# Take the snapshot, keep the run's files, submit.  Once begun it finishes, connection or not.
#   main LOCK SECONDS ROOT STATE SNAPSHOT RUN_DIR SCRIPT RECEIPT SUBMITTER...
# STATE: what ROOT/manifest must say, or - where there is no code.  SCRIPT and RECEIPT are in the
# escapes of printf's %b.  SUBMITTER: the words before the batch script, `sbatch ...`.
# A run that was submitted already is only told its job id: asking again is safe.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    # the laptop may go away: no signal of its going ends what was begun
    trap '' HUP PIPE
    run=$6
    if [ -s "$run/job" ]; then
        printf 'found %s\n' "$(cat "$run/job")"
        return 0
    fi
    rv_lock "$1" "$2" || return 1
    trap '' HUP
    root=$3
    state=$4
    snapshot=$5
    script=$7
    receipt=$8
    shift 8
    if [ "$state" != - ]; then
        if [ "$(cat "$root/manifest" 2>/dev/null)" != "$state" ]; then
            printf 'stale\n'
            return 0
        fi
        take_snapshot || rv_fail "the snapshot could not be taken (is scratch full?)" || return 1
    fi
    (umask 077 && mkdir -p "$run") || return 1
    printf '%b' "$script" | rv_store "$run/job.sh" 700 || return 1
    printf '%b' "$receipt" | rv_store "$run/receipt.json" 600 || return 1
    answer=$(submit "$@" 2>"$run/submit.err")
    status=$?
    # --parsable says ID or ID;CLUSTER, after whatever the site's plugins say
    job=$(printf '%s\n' "$answer" | sed -n 's/^\([0-9][0-9]*\)\(;.*\)*$/\1/p' | tail -n 1)
    if [ "$status" -ne 0 ] || [ -z "$job" ]; then
        cat "$run/submit.err" >&2
        return 1
    fi
    printf '%s\n' "$job" | rv_store "$run/job" 600
    printf 'submitted %s\n' "$job"
}

# Nothing of the submitting shell decides about the job.
submit() {
    for name in $(env | sed -n -e 's/^\(SBATCH_[A-Z0-9_]*\)=.*/\1/p' -e 's/^\(SLURM_[A-Z0-9_]*\)=.*/\1/p'); do
        [ "$name" = SLURM_CONF ] || unset "$name"
    done
    cd / && "$@" "$run/job.sh" </dev/null
}

# A whole copy: neither the job nor a later push can change what another job reads.
take_snapshot() {
    [ -d "$snapshot" ] && return 0
    mkdir -p "${snapshot%/*}" || return 1
    rm -rf "$snapshot.part"
    cp -R "$root/code" "$snapshot.part" && mv "$snapshot.part" "$snapshot"
}
