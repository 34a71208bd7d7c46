#!/bin/bash
# The steps of a job that is a stage of a pipeline; sourced behind job.sh by the batch script.
# What a stage has done is told by DATA/.rvstate/stages/NAME/record, which is there only from the end
# of a success to the beginning of the next run: a stage that failed, or was killed, is not done.
# The record's lines: `run ID`, what was given as KEY, `after ID STAGE`, `input DIGEST PATH`,
# `output DIGEST PATH`, and `//` last of all: one without it was cut.
# shellcheck shell=bash
# shellcheck disable=SC2154 # rv_* come from job.sh

# rv_stage DATA NAME KEY...: which stage this is, and where the files of the pipeline are.
rv_stage() {
    RV_PIPELINE_DIR=$1
    RV_STAGE=$2
    export RV_PIPELINE_DIR RV_STAGE
    rv_stage_place=$1/.rvstate/stages/$2
    shift 2
    rv_stage_key=("$@")
    rv_stage_after=()
    rv_stage_inputs=()
    rv_stage_outputs=()
    rv_stage_variables=()
}

# rv_links NAME...: what is not code is found under the same name as on the user's own machine.
rv_links() {
    local name
    for name; do
        if [ -e "$RV_SNAPSHOT/$name" ] || [ -L "$RV_SNAPSHOT/$name" ]; then continue; fi
        # another stage may do the same at this moment
        ln -s "$RV_PIPELINE_DIR/$name" "$RV_SNAPSHOT/$name" 2>/dev/null || [ -L "$RV_SNAPSHOT/$name" ] ||
            rv_give_up "cannot make the link $RV_SNAPSHOT/$name"
    done
}

# rv_stage_env NAME=VALUE...: variables of the stage, which go over the user's own.
rv_stage_env() {
    # shellcheck disable=SC2034 # job.sh exports them
    rv_stage_variables=("$@")
}

# rv_after STAGE...: stages that this one follows.
rv_after() {
    rv_stage_after=("$@")
}

# rv_inputs PATH..., rv_outputs PATH...: what it reads and makes.
rv_inputs() {
    rv_stage_inputs=("$@")
}

rv_outputs() {
    rv_stage_outputs=("$@")
}

# rv_folders PATH...: outputs that are directories; a program may only write into one that is there.
rv_folders() {
    local path
    for path; do
        mkdir -p -- "$RV_PIPELINE_DIR/$path" || rv_give_up "cannot make $RV_PIPELINE_DIR/$path"
    done
}

# rv_stage_begin LIBRARY: from here on the stage is not done; what its inputs are now is what counts.
rv_stage_begin() {
    local path name
    rv_library=$1
    if ! { mkdir -p "$rv_stage_place" && printf '%s\n' "${rv_run_dir##*/}" >"$rv_stage_place/.run" &&
        mv "$rv_stage_place/.run" "$rv_stage_place/run" &&
        rm -f "$rv_stage_place/record" "$rv_stage_place/.table"; }; then
        rv_give_up "cannot write to $rv_stage_place (is scratch full?)"
    fi
    for path in "${rv_stage_outputs[@]}"; do
        case $path in
            */*) mkdir -p -- "$RV_PIPELINE_DIR/${path%/*}" || rv_give_up "cannot make $RV_PIPELINE_DIR/${path%/*}" ;;
        esac
    done
    {
        printf 'run %s\n' "${rv_run_dir##*/}"
        printf '%s\n' "${rv_stage_key[@]}"
        for name in "${rv_stage_after[@]}"; do
            printf 'after %s %s\n' "$(sed -n 's/^run //p' "$RV_PIPELINE_DIR/.rvstate/stages/$name/record" 2>/dev/null)" "$name"
        done
    } >"$RV_RUN_DIR/stage" || rv_give_up "cannot write to $RV_RUN_DIR"
    rv_take_digests input "${rv_stage_inputs[@]}" ||
        rv_give_up "stage $RV_STAGE does not have its inputs"
}

# rv_stage_end: the stage has succeeded, if its outputs are there; then that is recorded.
rv_stage_end() {
    local path from to
    for path in "${rv_stage_outputs[@]}"; do
        # who writes aside and renames puts a file in the place of the link
        from=$RV_SNAPSHOT/$path
        to=$RV_PIPELINE_DIR/$path
        if [ -f "$from" ] && ! [ "$from" -ef "$to" ] && ! [ -d "$to" ]; then
            mv -f -- "$from" "$to" && ln -s "$to" "$from" || return 1
        fi
    done
    if ! rv_take_digests output "${rv_stage_outputs[@]}"; then
        printf 'rvstate: the command of stage %s ended well, and its outputs are not what was declared: it counts as failed\n' "$RV_STAGE" >&2
        return 1
    fi
    printf '//\n' >>"$RV_RUN_DIR/stage" && cp "$RV_RUN_DIR/stage" "$rv_stage_place/.record" &&
        mv "$rv_stage_place/.record" "$rv_stage_place/record"
}

# rv_take_digests WORD PATH...: note a line `WORD DIGEST PATH` for each; 1 where one is missing.
rv_take_digests() {
    local word=$1 work=$rv_stage_place/.work-$RV_JOB_ID missing
    shift
    [ $# -gt 0 ] || return 0
    rm -rf "$work" && mkdir "$work" || return 1
    cat "$RV_PIPELINE_DIR"/.rvstate/table "$RV_PIPELINE_DIR"/.rvstate/stages/*/table >"$work/known" 2>/dev/null
    # lib.sh is for shells of its own
    if ! (
        # shellcheck source=/dev/null
        . "$rv_library/lib.sh" && rv_path_digests "$RV_PIPELINE_DIR" "$work" "$@"
    ) >"$RV_RUN_DIR/digests"; then
        rm -rf "$work"
        return 1
    fi
    missing=$(sed -n 's/^- //p' "$RV_RUN_DIR/digests")
    if [ -n "$missing" ]; then
        printf 'rvstate: %s %s is not in %s\n' "$word" "${missing%%$'\n'*}" "$RV_PIPELINE_DIR" >&2
        rm -rf "$work"
        return 1
    fi
    sed "s/^/$word /" "$RV_RUN_DIR/digests" >>"$RV_RUN_DIR/stage" && cat "$work/table" >>"$rv_stage_place/.table" &&
        if [ "$word" = output ]; then mv "$rv_stage_place/.table" "$rv_stage_place/table"; fi
    missing=$?
    rm -rf "$work"
    return "$missing"
}
