#!/bin/sh
# How busy the GPUs of running jobs are; only reads.
#   main QUERY (JOB NODES)...      QUERY is a command line of nvidia-smi, NODES a count
# Each node answers in a section `gpu JOB STATUS` with lines `NODE|DEVICES|ROW`.
# shellcheck shell=sh

main() {
    query=$1
    shift
    while [ $# -ge 2 ]; do
        # shellcheck disable=SC2016 # expanded on the node
        rows=$(srun --overlap --quiet --jobid="$1" --nodes="$2" --ntasks="$2" --ntasks-per-node=1 \
            --export=ALL --immediate=20 sh -c '
            eval "$1" </dev/null | while IFS= read -r row; do
                printf "%s|%s|%s\n" "$(uname -n)" "${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS-}}" "$row"
            done
        ' sh "$query" </dev/null)
        rv_section "gpu $1 $?"
        printf '%s\n' "$rows"
        shift 2
    done
}
