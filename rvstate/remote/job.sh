#!/bin/bash
# What every batch script hands over to; sourced by bash on the compute node, or here by the process
# scheduler.  The batch script reads as a list of these steps, `rv_run COMMAND...` last.
# shellcheck shell=bash

# rv_begin RV RUN_DIR NAME: names and directories of this job.
rv_begin() {
    # sbatch --export=NONE keeps the submitting shell out; srun must not inherit that
    unset SLURM_EXPORT_ENV PYTHONHOME PYTHONPATH
    RV_JOB_ID=${SLURM_JOB_ID:-${RV_JOB_ID:-0}}
    RV_RUN_DIR=$2
    RV_OUTPUT_DIR=$1/outputs/$3-$RV_JOB_ID
    RV_CHECKPOINT_DIR=$1/checkpoints/$3
    MASTER_PORT=$((29500 + RV_JOB_ID % 1000))
    OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
    TOKENIZERS_PARALLELISM=false
    PYTHONUNBUFFERED=1
    PYTHONNOUSERSITE=1
    export RV_JOB_ID RV_RUN_DIR RV_OUTPUT_DIR RV_CHECKPOINT_DIR MASTER_PORT OMP_NUM_THREADS
    export TOKENIZERS_PARALLELISM PYTHONUNBUFFERED PYTHONNOUSERSITE
    rv_kept=()
    rv_env_file=
    mkdir -p "$RV_OUTPUT_DIR" "$RV_CHECKPOINT_DIR" || rv_give_up "cannot make $RV_OUTPUT_DIR"
}

# rv_give_up REASON: end the job before the user's program, saying why.
rv_give_up() {
    printf 'rvstate: %s\n' "$1" >&2
    rv_record 1
    exit 1
}

# rv_record STATUS: what `rvstate ps` reads where accounting lags or is absent.
rv_record() {
    printf '%s %s\n' "$1" "$(date +%s)" >"$RV_RUN_DIR/.exit" &&
        mv "$RV_RUN_DIR/.exit" "$RV_RUN_DIR/exit"
}

# rv_modules NAME...: load environment modules, all or none.
rv_modules() {
    [ $# -gt 0 ] || return 0
    if ! type module >/dev/null 2>&1; then
        # a batch shell reads no start-up files
        # shellcheck source=/dev/null
        [ -r /etc/profile ] && . /etc/profile >/dev/null 2>&1
    fi
    type module >/dev/null 2>&1 || rv_give_up "this node has no module command, needed for: $*"
    module load "$@" || rv_give_up "module load $* failed; see [modules] in ~/.rv/config.toml"
}

# rv_environment DIRECTORY: put a Python environment in front.
rv_environment() {
    [ -x "$1/bin/python" ] || rv_give_up "the environment $1 is gone; submit again to rebuild it"
    VIRTUAL_ENV=$1
    PATH=$1/bin:$PATH
    export VIRTUAL_ENV PATH
}

# rv_variables FILE: the user's own variables, for the user's program only and over our defaults.
rv_variables() {
    rv_env_file=$1
}

# rv_directory SNAPSHOT SUBDIRECTORY SOURCES: where the command runs, and where imports come from.
rv_directory() {
    cd -- "$1/$2" || rv_give_up "the snapshot $1/$2 is gone; submit again"
    RV_SNAPSHOT=$1
    export RV_SNAPSHOT
    if [ -n "$3" ]; then
        PYTHONPATH=$1/$3
        export PYTHONPATH
    fi
}

# rv_keep PATH...: copy these to RV_OUTPUT_DIR at the end, however the command ends.
rv_keep() {
    rv_kept+=("$@")
}

rv_copy_kept() {
    local path
    for path in "${rv_kept[@]}"; do
        if [ -e "$path" ]; then
            cp -R -- "$path" "$RV_OUTPUT_DIR/" || printf 'rvstate: %s was not kept\n' "$path" >&2
        else
            printf 'rvstate: %s was asked for with -o and is not there\n' "$path" >&2
        fi
    done
}

# rv_run COMMAND...: the user's program; its exit status is the job's.
rv_run() {
    local status
    trap 'rv_pass_on TERM' TERM
    trap 'rv_pass_on INT' INT
    (
        trap - TERM INT
        if [ -n "$rv_env_file" ] && [ -r "$rv_env_file" ]; then
            # shellcheck source=/dev/null
            . "$rv_env_file"
        fi
        exec "$@"
    ) &
    rv_child=$!
    wait "$rv_child"
    status=$?
    # a signal ends `wait` early; the program may still be saving
    while kill -0 "$rv_child" 2>/dev/null; do
        wait "$rv_child"
        status=$?
    done
    rv_copy_kept
    rv_record "$status"
    exit "$status"
}

rv_pass_on() {
    kill -s "$1" "$rv_child" 2>/dev/null
}
