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
    rv_claim
    RV_OUTPUT_DIR=$1/outputs/$3-$RV_JOB_ID
    RV_CHECKPOINT_DIR=$1/checkpoints/$3
    # below the ports that the kernel hands out by itself; torchrun reads the second name
    MASTER_PORT=$((10000 + RV_JOB_ID % 20000))
    PET_MASTER_PORT=$MASTER_PORT
    OMP_NUM_THREADS=$(rv_threads)
    TOKENIZERS_PARALLELISM=false
    PYTHONUNBUFFERED=1
    PYTHONNOUSERSITE=1
    export RV_JOB_ID RV_RUN_DIR RV_OUTPUT_DIR RV_CHECKPOINT_DIR MASTER_PORT PET_MASTER_PORT
    export OMP_NUM_THREADS TOKENIZERS_PARALLELISM PYTHONUNBUFFERED PYTHONNOUSERSITE
    rv_kept=()
    rv_env_file=
    rv_errors=
    rv_deliver=rv_to_child
    mkdir -p "$RV_OUTPUT_DIR" "$RV_CHECKPOINT_DIR" || rv_give_up "cannot make $RV_OUTPUT_DIR"
    rv_log=$1/logs/$3-$RV_JOB_ID.err
}

# rv_announce LIBRARY: tell that the job has started; nothing waits for that, nor fails by it.
rv_announce() {
    # shellcheck source=/dev/null # what stands beside this file
    (. "$1/lib.sh" && . "$1/notify.sh" && main started "$RV_RUN_DIR") </dev/null >/dev/null 2>&1 || :
}

# rv_claim: of two jobs that one run may have become only one goes on, and the run knows its job
# even where nobody heard sbatch answer.
rv_claim() {
    local owner
    if ! (set -o noclobber && printf '%s\n' "$RV_JOB_ID" >"$RV_RUN_DIR/claim") 2>/dev/null; then
        owner=$(cat "$RV_RUN_DIR/claim" 2>/dev/null)
        # a requeued job keeps its number
        if [ -n "$owner" ] && [ "$owner" != "$RV_JOB_ID" ]; then
            printf 'rvstate: this run is job %s already; nothing was run a second time\n' "$owner" >&2
            exit 1
        fi
    fi
    # a requeued job has not ended yet, whatever its first attempt came to
    rm -f "$RV_RUN_DIR/exit"
    if ! [ -s "$RV_RUN_DIR/job" ]; then
        printf '%s\n' "$RV_JOB_ID" >"$RV_RUN_DIR/.job" && mv "$RV_RUN_DIR/.job" "$RV_RUN_DIR/job"
    fi
}

# rv_threads: CPUs for one of the programs that share this job, one a GPU.
rv_threads() {
    local cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}} gpus=${SLURM_GPUS_ON_NODE:-1}
    [ "$gpus" -gt 0 ] 2>/dev/null || gpus=1
    printf '%s' $((cpus >= gpus ? cpus / gpus : 1))
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

# rv_directory SNAPSHOT SUBDIRECTORY SOURCES: where the command runs, and where imports come from:
# the project's own package from the snapshot, its metadata and commands from the run's directory.
rv_directory() {
    cd -- "$1/$2" || rv_give_up "the snapshot $1/$2 is gone; submit again"
    RV_SNAPSHOT=$1
    export RV_SNAPSHOT
    if [ -n "$3" ]; then
        PYTHONPATH=$1/$3
        if [ -d "$RV_RUN_DIR/package" ]; then
            PYTHONPATH=$PYTHONPATH:$RV_RUN_DIR/package
            PATH=$RV_RUN_DIR/package/bin:$PATH
        fi
        export PYTHONPATH PATH
    fi
}

# rv_read_only: the snapshot's files are; say so where that may be why the program failed.
rv_read_only() {
    rv_errors=$rv_log
}

# rv_extensions: build the project's compiled extensions in this job's own snapshot.
rv_extensions() {
    python -c 'import setuptools' 2>/dev/null ||
        rv_give_up "setup.py builds compiled extensions, which needs setuptools: add it to the requirements"
    (cd -- "$RV_SNAPSHOT" && python setup.py --quiet build_ext --inplace >&2) ||
        rv_give_up "the compiled extensions could not be built (setup.py build_ext --inplace)"
}

# rv_keep PATH...: copy these to RV_OUTPUT_DIR at the end, however the command ends.
rv_keep() {
    rv_kept+=("$@")
}

rv_copy_kept() {
    local path to
    for path in "${rv_kept[@]}"; do
        if ! [ -e "$path" ]; then
            [ "$1" = quiet ] ||
                printf 'rvstate: %s was asked for with -o and is not there\n' "$path" >&2
            continue
        fi
        # two paths with one last name stay apart
        case $path in
            /* | .. | ../* | */../* | */..) to=. ;;
            */*) to=$(dirname -- "$path") ;;
            *) to=. ;;
        esac
        if ! { mkdir -p -- "$RV_OUTPUT_DIR/$to" && cp -R -f -- "$path" "$RV_OUTPUT_DIR/$to/"; }; then
            printf 'rvstate: %s was not kept\n' "$path" >&2
        fi
    done
}

# rv_run COMMAND...: the user's program; its exit status is the job's.
rv_run() {
    rv_await rv_program "$@"
    rv_end "$rv_status"
}

# rv_program COMMAND...: the user's program, deaf to no signal.
rv_program() {
    trap - TERM INT HUP USR1 USR2
    rv_become "$@"
}

# rv_become COMMAND...: become it, with the user's variables.
rv_become() {
    if [ -n "$rv_env_file" ] && [ -r "$rv_env_file" ]; then
        # shellcheck source=/dev/null
        . "$rv_env_file"
    fi
    exec "$@"
}

# rv_await STEP...: run it beside this shell, which hands signals on; rv_status is how it ended.
rv_await() {
    local signal
    for signal in TERM INT HUP USR1 USR2; do
        # shellcheck disable=SC2064 # the name now, not then
        trap "rv_pass_on $signal" "$signal"
    done
    "$@" &
    rv_child=$!
    # a signal ends `wait` early; the program may still be saving
    while :; do
        rv_signalled=
        wait "$rv_child"
        rv_status=$?
        [ -n "$rv_signalled" ] || break
    done
}

# rv_end STATUS: keep what is to be kept, and end the job so.
rv_end() {
    rv_copy_kept loud
    if [ "$1" -ne 0 ] && [ -n "$rv_errors" ] && grep -q 'Permission denied' "$rv_errors" 2>/dev/null; then
        printf '%s\n' "rvstate: files of this snapshot are read-only, for it shares them with other jobs." \
            "  → Write to a new file, or submit with --writable, or name it under [snapshot] writable." >&2
    fi
    rv_record "$1"
    exit "$1"
}

# The program gets the signal first.  Where it takes its time, what there is is kept already: after
# TERM Slurm kills within KillWait (30 s by default).
rv_pass_on() {
    local turn
    rv_signalled=yes
    "$rv_deliver" "$1"
    [ "$1" = TERM ] && [ "${#rv_kept[@]}" -gt 0 ] || return 0
    for turn in 1 2 3 4; do
        kill -0 "$rv_child" 2>/dev/null || return 0
        sleep "0.$turn" 2>/dev/null || sleep 1
    done
    rv_copy_kept quiet
}

# rv_to_child SIGNAL: to the program; rv_deliver names what is done with a signal.
rv_to_child() {
    kill -s "$1" "$rv_child" 2>/dev/null
}
