#!/bin/bash
# What every batch script hands over to; sourced by bash on the compute node, or here by the process
# scheduler.  The batch script reads as a list of these steps, `rv_run COMMAND...` last.
# shellcheck shell=bash

# rv_begin RV RUN_DIR NAME [OFFSET]: names and directories of this job.  OFFSET: in an array, what is
# added to Slurm's index; each element has a directory of its own below RUN_DIR, as a run has.
rv_begin() {
    local number
    # sbatch --export=NONE keeps the submitting shell out; srun must not inherit that
    unset SLURM_EXPORT_ENV PYTHONHOME PYTHONPATH RV_PYTHON
    RV_JOB_ID=${SLURM_JOB_ID:-${RV_JOB_ID:-0}}
    number=$RV_JOB_ID
    RV_RUN_DIR=$2
    rv_run_dir=$2
    rv_scratch=${1%/.rv}
    RV_OUTPUT_DIR=$1/outputs/$3-$RV_JOB_ID
    RV_CHECKPOINT_DIR=$1/checkpoints/$3
    if [ $# -gt 3 ]; then rv_element "$@"; fi
    rv_claim
    MASTER_PORT=$(rv_port $((10000 + number % 20000)))
    # torchrun reads this name
    PET_MASTER_PORT=$MASTER_PORT
    OMP_NUM_THREADS=$(rv_threads)
    TOKENIZERS_PARALLELISM=false
    PYTHONUNBUFFERED=1
    PYTHONNOUSERSITE=1
    export RV_JOB_ID RV_RUN_DIR RV_OUTPUT_DIR RV_CHECKPOINT_DIR MASTER_PORT PET_MASTER_PORT
    export OMP_NUM_THREADS TOKENIZERS_PARALLELISM PYTHONUNBUFFERED PYTHONNOUSERSITE
    rv_kept=()
    rv_generation=
    rv_container=
    rv_env_file=
    rv_errors=
    rv_stage_variables=()
    rv_stage_place=
    rv_terminated=
    rv_warning=
    # shellcheck disable=SC2034 # job_signals.sh calls it
    rv_deliver=rv_to_child
    mkdir -p "$RV_OUTPUT_DIR" "$RV_CHECKPOINT_DIR" || rv_give_up "cannot make $RV_OUTPUT_DIR"
    rv_log=$1/logs/$3-$RV_JOB_ID.err
}

# rv_port FIRST: the first of a few ports on which nobody listens on this node, which others may
# share.  They are below those that the kernel hands out by itself.
rv_port() {
    local port=$1
    if ! rv_visiting; then
        while [ "$port" -lt $(($1 + 50)) ] && (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
            port=$((port + 1))
        done
    fi
    printf '%s' "$port"
}

# rv_element RV RUN_DIR NAME OFFSET: which element of the array this is, and where it lives.
rv_element() {
    if rv_visiting; then
        # who enters knows the job only
        RV_ARRAY_INDEX=$(cat "$2/elements/of-$RV_JOB_ID" 2>/dev/null)
        RV_JOB_ID=$(cat "$2/elements/${RV_ARRAY_INDEX:--}/job" 2>/dev/null)
    else
        RV_ARRAY_INDEX=$((SLURM_ARRAY_TASK_ID + $4))
        RV_JOB_ID=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    fi
    RV_RUN_DIR=$2/elements/$RV_ARRAY_INDEX
    RV_OUTPUT_DIR=$1/outputs/$3-${RV_JOB_ID%_*}/$RV_ARRAY_INDEX
    RV_CHECKPOINT_DIR=$1/checkpoints/$3/$RV_ARRAY_INDEX
    export RV_ARRAY_INDEX
    rv_visiting && return 0
    (umask 077 && mkdir -p "$RV_RUN_DIR" "$2/ended") || rv_give_up "cannot make $RV_RUN_DIR"
    printf '%s\n' "$RV_ARRAY_INDEX" >"$2/elements/of-$SLURM_JOB_ID"
}

# rv_sweep NAME VARIABLE STRIDE VALUE...: this element's value of a parameter; STRIDE elements in a
# row have the same.
rv_sweep() {
    local name=$1 variable=$2 stride=$3
    shift 3
    shift $((RV_ARRAY_INDEX / stride % $#))
    printf -v "$variable" '%s' "$1"
    export "${variable?}"
    rv_values="${rv_values:+$rv_values }$name=$1"
}

# rv_array SIZE [named]: how many elements there are.  Checkpoints of other parameters are not taken up;
# `named`: their directory is named by the parameters, so that every sweep has its own.
rv_array() {
    local mark
    RV_ARRAY_SIZE=$1
    export RV_ARRAY_SIZE
    if [ -n "${2:-}" ] && [ -n "${rv_values:-}" ]; then
        rv_visiting || rmdir "$RV_CHECKPOINT_DIR" 2>/dev/null
        RV_CHECKPOINT_DIR=${RV_CHECKPOINT_DIR%/*}/$(printf '%s' "$rv_values" | cksum | tr ' ' -)
        rv_visiting || mkdir -p "$RV_CHECKPOINT_DIR" || rv_give_up "cannot make $RV_CHECKPOINT_DIR"
    fi
    mark=$RV_CHECKPOINT_DIR/.rvstate-parameters
    if rv_visiting || [ -z "${rv_values:-}" ]; then return 0; fi
    if [ -s "$mark" ] && [ "$(cat "$mark")" != "$rv_values" ]; then
        rv_give_up "$RV_CHECKPOINT_DIR has checkpoints of $(cat "$mark"), and this is $rv_values; submit with another --name"
    fi
    printf '%s\n' "$rv_values" >"$mark"
}

# rv_announce LIBRARY: tell that the job has started; nothing waits for that, nor fails by it.
rv_announce() {
    rv_visiting && return 0
    # shellcheck source=/dev/null # what stands beside this file
    (. "$1/lib.sh" && . "$1/notify.sh" && main started "$rv_run_dir") </dev/null >/dev/null 2>&1 || :
}

# rv_cancelled: whether the user has given up the run, or this element of it.
rv_cancelled() {
    [ -e "$rv_run_dir/cancelled" ] || [ -e "$RV_RUN_DIR/cancelled" ]
}

# rv_claim: of two jobs that one run may have become only one goes on, and the run knows its job
# even where nobody heard sbatch answer.
rv_claim() {
    local owner turn own=$RV_RUN_DIR/.claim-$RV_JOB_ID
    rv_visiting && return 0
    if rv_cancelled; then
        printf 'rvstate: this run was cancelled; nothing was run\n' >&2
        exit 1
    fi
    # a link is never seen without its text; a file system without links makes the file first
    printf '%s\n' "$RV_JOB_ID" >"$own" && { ln "$own" "$RV_RUN_DIR/claim" ||
        (set -o noclobber && cat "$own" >"$RV_RUN_DIR/claim"); } 2>/dev/null
    for turn in 1 2 3 4 5; do
        owner=$(cat "$RV_RUN_DIR/claim" 2>/dev/null)
        if [ -n "$owner" ]; then break; fi
        sleep "$turn"
    done
    rm -f "$own"
    if [ -z "$owner" ]; then
        printf 'rvstate: %s cannot be claimed (is scratch full?); nothing was run\n' "$RV_RUN_DIR" >&2
        exit 1
    fi
    # a requeued job keeps its number
    if [ "$owner" != "$RV_JOB_ID" ]; then
        # of several jobs of which one is to run this is no failure
        [ -f "$rv_run_dir/choices" ] && exit 0
        printf 'rvstate: this run is job %s already; nothing was run a second time\n' "$owner" >&2
        exit 1
    fi
    # a requeued job has not ended yet, whatever its first attempt came to
    rm -f "$RV_RUN_DIR/exit"
    if [ "$RV_RUN_DIR" != "$rv_run_dir" ]; then
        rm -f "$rv_run_dir/ended/$RV_ARRAY_INDEX"-*
        # who has not begun and waits no more was cancelled, and Slurm keeps no word of that
        : >"$rv_run_dir/ended/$RV_ARRAY_INDEX-begun"
    fi
    if [ -f "$rv_run_dir/choices" ]; then
        rv_alone
    elif ! [ -s "$RV_RUN_DIR/job" ]; then
        printf '%s\n' "$RV_JOB_ID" >"$RV_RUN_DIR/.job" && mv "$RV_RUN_DIR/.job" "$RV_RUN_DIR/job"
    fi
}

# rv_alone: this is the one job of several that runs, so the run is this job, and the others, which
# ask for something else, end before they begin.  Where scancel does not work here they end by
# themselves as soon as they start: the run is claimed.
rv_alone() {
    local other
    printf '%s\n' "$RV_JOB_ID" >"$RV_RUN_DIR/.job" && mv "$RV_RUN_DIR/.job" "$RV_RUN_DIR/job"
    for other in $(tr , ' ' <"$RV_RUN_DIR/copies" 2>/dev/null); do
        [ "$other" = "$RV_JOB_ID" ] && continue
        # nobody wants Slurm's mail about it
        (scontrol update "jobid=$other" mailtype=NONE; scancel "$other") </dev/null >/dev/null 2>&1 &
    done
}

# rv_threads: CPUs for one of the programs that share this job, one a GPU.
rv_threads() {
    local cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}} gpus=${SLURM_GPUS_ON_NODE:-1}
    [ "$gpus" -gt 0 ] 2>/dev/null || gpus=1
    printf '%s' $((cpus >= gpus ? cpus / gpus : 1))
}

# rv_share PROGRAMS: how many the command starts here, where that is not one for each GPU.
rv_share() {
    local cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
    OMP_NUM_THREADS=$((cpus > $1 ? cpus / $1 : 1))
}

# rv_give_up REASON: end the job before the user's program, saying why.
rv_give_up() {
    printf 'rvstate: %s\n' "$1" >&2
    rv_record 1
    exit 1
}

# rv_record STATUS [WHY]: what `rvstate ps` reads where accounting lags or is absent.
rv_record() {
    rv_visiting && return 0
    printf '%s\n' "$1 $(date +%s)${2:+ $2}" >"$RV_RUN_DIR/.exit" &&
        mv "$RV_RUN_DIR/.exit" "$RV_RUN_DIR/exit"
    # the names alone tell of a thousand elements, without opening a file
    if [ "$RV_RUN_DIR" != "$rv_run_dir" ]; then : >"$rv_run_dir/ended/$RV_ARRAY_INDEX-$1"; fi
}

# rv_note_changes: what was installed by hand into the generation, for whoever replaces or heals it.
rv_note_changes() {
    [ -n "$rv_generation" ] && [ -f "$rv_generation/.rvstate/installed" ] || return 0
    rv_build added "$rv_generation" 2>&1 | sed -n 's/^added //p' >"$RV_RUN_DIR/.added"
    if [ -s "$RV_RUN_DIR/.added" ]; then
        cp "$RV_RUN_DIR/.added" "$RV_RUN_DIR/environment-added" &&
            mv "$RV_RUN_DIR/.added" "$rv_generation/.rvstate/.added-$RV_JOB_ID" &&
            mv "$rv_generation/.rvstate/.added-$RV_JOB_ID" "$rv_generation/.rvstate/added"
    elif [ -e "$rv_generation/.rvstate/added" ]; then
        rm -f "$rv_generation/.rvstate/added" "$RV_RUN_DIR/.added"
    else
        rm -f "$RV_RUN_DIR/.added"
    fi
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
        if [ -d "$rv_run_dir/package" ]; then
            PYTHONPATH=$PYTHONPATH:$rv_run_dir/package
            PATH=$rv_run_dir/package/bin:$PATH
        fi
        export PYTHONPATH PATH
    fi
    # what a pipeline that is written as code imports
    if [ -d "$rv_run_dir/python" ]; then
        PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$rv_run_dir/python
        export PYTHONPATH
    fi
}

# rv_enter: up to here these are the job's surroundings.  Who enters the running job (inside.sh) goes
# through the same steps and stops at this line; what follows is the job's own.
rv_enter() {
    :
}

# rv_visiting: whether this is somebody who entered, and not the job: then nothing is said of the
# job, and nothing of it is changed.
rv_visiting() {
    [ "${rv_entered:-}" = "$$" ]
}

# rv_read_only: the snapshot's files are; say so where that may be why the program failed.
rv_read_only() {
    rv_errors=$rv_log
}

# rv_log_size: bytes of the job's error log so far.
rv_log_size() {
    stat -c %s "$rv_log" 2>/dev/null || echo 0
}

# rv_log_behind BYTES: what it has behind that many.
rv_log_behind() {
    tail -c "+$(($1 + 1))" "$rv_log" 2>/dev/null
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
    rv_await rv_become "$@"
    # shellcheck disable=SC2154 # of job_signals.sh
    rv_end "$rv_status"
}

# rv_own_variables: the user's variables; whatever they say of PATH, the environment stays in front.
rv_own_variables() {
    local path=$PATH python=${RV_PYTHON-}
    if [ -n "$rv_env_file" ] && [ -r "$rv_env_file" ]; then
        # shellcheck source=/dev/null
        . "$rv_env_file"
        # a PATH of the user's own hides everything but the environment
        if [ "$PATH" != "$path" ] && [ -n "$python" ]; then PATH=$(rv_front "$python"):$PATH; fi
    fi
    if [ "${#rv_stage_variables[@]}" -gt 0 ]; then export "${rv_stage_variables[@]}"; fi
}

# rv_front PYTHON: the directory where `python` is found by that name.
rv_front() {
    # one interpreter alone has its names there
    if [ -n "$1" ] && [ -x "$RV_RUN_DIR/python/python" ]; then
        printf '%s' "$RV_RUN_DIR/python"
    else
        printf '%s' "${1%/*}"
    fi
}

# rv_become COMMAND...: become it, with the user's variables.
rv_become() {
    local python=${RV_PYTHON-} front
    front=$(rv_front "$python")
    rv_own_variables
    rv_preflight "$python" "$front" "$@"
    case $1 in
        "${python%/*}"/*) ;;
        /*/python | /*/python[0-9]*)
            # its errors look like those of an environment that lacks something
            if [ -n "$python" ]; then printf "rvstate: %s is another Python than the environment's\n" "$1" >&2; fi
            ;;
    esac
    if [ -n "$rv_container" ]; then
        set -- apptainer exec --nv --bind "$rv_scratch" --pwd "$PWD" "$rv_container" "$@"
    fi
    exec "$@"
}

# rv_end STATUS: keep what is to be kept, and end the job so.
rv_end() {
    rv_copy_kept loud
    rv_note_changes
    if [ -n "$rv_warning" ]; then rv_segment_ends "$1"; fi
    if [ "$1" -eq 0 ] && [ -n "$rv_stage_place" ] && ! rv_stage_end; then set -- 1; fi
    if { [ "$1" -ne 0 ] || [ -n "$rv_terminated" ]; } && rv_requeued; then
        # this attempt ends, and the run does not
        printf 'rvstate: Slurm has put this job back into its queue and will start it again\n' >&2
        exit "$1"
    fi
    if [ "$1" -ne 0 ] && [ -n "$rv_errors" ] && grep -q 'Permission denied' "$rv_errors" 2>/dev/null; then
        printf '%s\n' "rvstate: files of this snapshot are read-only, for it shares them with other jobs." \
            "  → Write to a new file (a copy of one needs chmod u+w), or submit with --writable, or name it under [snapshot] writable." >&2
    fi
    rv_record "$1"
    exit "$1"
}

# rv_requeued: whether Slurm has put the job back into its queue since this attempt began: a node
# failed, or another job needed the place.
rv_requeued() {
    local restarts
    restarts=$(timeout 10 scontrol show job -o "${SLURM_JOB_ID:-}" 2>/dev/null |
        sed -n "s/^JobId=$SLURM_JOB_ID .* Restarts=\([0-9]*\).*/\1/p")
    [ -n "${SLURM_JOB_ID:-}" ] && [ "${restarts:-0}" -gt "${SLURM_RESTART_COUNT:-0}" ]
}
