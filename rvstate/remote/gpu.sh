#!/bin/sh
# How busy the GPUs of running jobs are; only reads.
#   main QUERY (JOB NODES)...      QUERY is a command line of nvidia-smi, NODES a count
# Each job answers in a section `gpu JOB STATUS` with lines `NODE|DEVICES|ROW`, where a last ROW
# `failed STATUS WORDS` tells of a node that could not say all; `errors JOB` has srun's own words.
# shellcheck shell=sh

main() {
    query=$1
    shift
    folder=$(mktemp -d) || return 1
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    jobs=
    # they do not wait for one another
    while [ $# -ge 2 ]; do
        jobs="$jobs $1"
        look "$1" "$2" >"$folder/$1" 2>"$folder/$1.errors" &
        shift 2
    done
    wait
    for job in $jobs; do
        status=unknown
        read -r status <"$folder/$job.status"
        rv_section "gpu $job $status" && cat "$folder/$job"
        rv_section "errors $job" && tail -c 2000 "$folder/$job.errors"
    done
}

# A node that does not answer any more may keep srun for ever, and a broken driver nvidia-smi.
look() {
    trap - EXIT HUP INT TERM
    # shellcheck disable=SC2016 # expanded on the node
    timeout -k 5 45 srun --overlap --quiet --jobid="$1" --nodes="$2" --ntasks="$2" \
        --ntasks-per-node=1 --export=ALL --immediate=20 sh -c '
            rows=$(eval "timeout 15 $1" 2>&1 </dev/null)
            status=$?
            {
                printf "%s\n" "$rows"
                if [ "$status" != 0 ]; then
                    printf "failed %s %s\n" "$status" "$(printf "%s" "$rows" | tail -n 1)"
                fi
            } | while IFS= read -r row; do
                printf "%s|%s|%s\n" "$(uname -n)" "${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS-}}" "$row"
            done
        ' sh "$query" </dev/null
    printf '%s\n' "$?" >"$folder/$1.status"
}
