#!/bin/sh
# Enter a running job.
#   main SCRATCH_TEMPLATE HOME RUN JOB NODE SCHEDULER shell TERM
#   main SCRATCH_TEMPLATE HOME RUN JOB NODE SCHEDULER line TEXT
# RUN is the run's directory, perhaps below /{scratch}; NODE may be empty; SCHEDULER is slurm or
# process.  A TEXT travels in a private file, for Slurm keeps the words of every step.
# Says `group PGID` first and `status N` at once behind the last byte (see execute.sh).
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    rv_real "$3"
    run=$rv_path
    job=$4
    node=$5
    scheduler=$6
    rv_find_library "$run" || return 1
    rv_section "group $(ps -o pgid= -p $$ | tr -d ' ')"
    if [ "$7" = shell ]; then
        enter --pty shell "$8"
    else
        # login nodes share the directory, and each counts its processes from one
        file=$(mktemp "$run/.enter-XXXXXXXX") || return 1
        trap 'rm -f "$file"' EXIT
        trap 'exit 129' HUP
        trap 'exit 130' INT
        trap 'exit 143' TERM
        printf '%s' "$8" >"$file" || return 1
        enter --quit-on-interrupt file "$file"
    fi
    status=$?
    if [ -n "${file-}" ]; then rm -f "$file"; fi
    [ -n "$rv_nonce" ] || exit "$status"
    printf '@@rvstate %s status %s\n' "$rv_nonce" "$status"
    exit "$status"
}

enter() {
    option=$1
    shift
    if [ "$scheduler" = process ]; then
        RV_JOB_ID=$job bash "$rv_library/inside.sh" "$run" "$@"
        return
    fi
    srun "$option" --overlap --quiet --jobid="$job" ${node:+--nodelist="$node"} --nodes=1 \
        --ntasks=1 --export=NONE /bin/bash "$rv_library/inside.sh" "$run" "$@"
}
