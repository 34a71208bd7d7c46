#!/bin/bash
# The steps of a job that is a stage of a pipeline; sourced behind job.sh by the batch script.
# What a stage has done is told by DATA/.rvstate/stages/NAME/record, which is there only from the end
# of a success to the beginning of the next run: a stage that failed, or was killed, is not done.
# The record's lines: `run ID`, what was given as KEY, `after ID STAGE`, `input DIGEST PATH`,
# `output DIGEST PATH`, and `//` last of all: one without it was cut.  Beside it lie `former`, the
# record of the last success, whatever has begun since, and `marks`, the outputs as they were then.
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

# rv_stage_env NAME=VALUE...: variables of the stage, which go over the user's own, on all nodes.
rv_stage_env() {
    # shellcheck disable=SC2034 # job.sh exports them
    rv_stage_variables=("$@")
    # what srun starts takes them from here (launch.sh)
    printf -v RV_STAGE_VARIABLES '%q ' "$@"
    export RV_STAGE_VARIABLES
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

# rv_stage_begin LIBRARY [unless-same]: from here on the stage is not done; what its inputs are now is
# what counts.  unless-same: the job ends here where all is as it was when the stage succeeded.
rv_stage_begin() {
    local path name
    rv_library=$1
    if ! { mkdir -p "$rv_stage_place" && printf '%s\n' "${rv_run_dir##*/}" >"$rv_stage_place/.run" &&
        mv "$rv_stage_place/.run" "$rv_stage_place/run" && rm -rf "$rv_stage_place/.table" "$rv_stage_place"/.replaced-*; }; then
        rv_give_up "cannot write to $rv_stage_place (is scratch full?)"
    fi
    [ "${2:-}" = unless-same ] || rv_stage_open
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
    if [ "${2:-}" = unless-same ]; then
        if rv_stage_same; then rv_stage_stays; fi
        rv_stage_open
    fi
    rv_stage_mark >"$rv_stage_place/marks" || rv_give_up "cannot write to $rv_stage_place (is scratch full?)"
}

# rv_stage_open: the stage is not done any more; what its last success was is kept beside.
rv_stage_open() {
    if rv_stage_whole; then mv "$rv_stage_place/record" "$rv_stage_place/former"; fi
    rm -f "$rv_stage_place/record" || rv_give_up "cannot write to $rv_stage_place"
}

# rv_stage_whole: whether there is a record, and it was not cut.
rv_stage_whole() {
    [ "$(tail -n 1 "$rv_stage_place/record" 2>/dev/null)" = // ]
}

# rv_stage_same: whether the stage succeeded with this key and these inputs, and its outputs are as
# they were then.  The runs that it followed do not count: who asks has seen to that.
rv_stage_same() {
    local now before
    rv_stage_whole || return 1
    cp "$RV_RUN_DIR/stage" "$RV_RUN_DIR/stage.begun" || return 1
    rv_take_digests output "${rv_stage_outputs[@]}" 2>/dev/null
    now=$(grep -v -e '^run ' -e '^after ' "$RV_RUN_DIR/stage" | LC_ALL=C sort)
    mv "$RV_RUN_DIR/stage.begun" "$RV_RUN_DIR/stage"
    before=$(grep -v -e '^run ' -e '^after ' -e '^//$' "$rv_stage_place/record" | LC_ALL=C sort)
    [ "$now" = "$before" ]
}

# rv_stage_stays: end the job well without its command.
rv_stage_stays() {
    printf 'rvstate: what stage %s reads came out as it was, so what it made in run %s holds, and nothing was run\n' \
        "$RV_STAGE" "$(sed -n 's/^run //p' "$rv_stage_place/record")" >&2
    [ -z "${rv_clock_child:-}" ] || kill "$rv_clock_child" 2>/dev/null
    rv_record 0
    exit 0
}

# rv_stage_mark: a line `MARK PATH` for each output that is there; the mark is another as soon as
# anything was written to it.
rv_stage_mark() {
    local path mark
    # where find tells no dates, nothing can be said
    [ "$(uname -s)" = Linux ] || return 0
    for path in "${rv_stage_outputs[@]}"; do
        if ! [ -e "$RV_PIPELINE_DIR/$path" ]; then continue; fi
        mark=$(
            # shellcheck source=/dev/null
            . "$rv_library/lib.sh" && cd -- "$RV_PIPELINE_DIR" && rv_list_files "./$path" 2>/dev/null |
                LC_ALL=C sort -z | cksum
        )
        printf '%s %s\n' "${mark// /-}" "$path"
    done
}

# rv_stage_end: the stage has succeeded, if its outputs are there and it has made them; then that is
# recorded.
rv_stage_end() {
    if ! { rv_bring_outputs && rv_take_digests output "${rv_stage_outputs[@]}" && rv_stage_made; }; then
        printf 'rvstate: the command of stage %s ended well, and its outputs are not what was declared: it counts as failed\n' "$RV_STAGE" >&2
        return 1
    fi
    printf '//\n' >>"$RV_RUN_DIR/stage" && cp "$RV_RUN_DIR/stage" "$rv_stage_place/.record" &&
        mv "$rv_stage_place/.record" "$rv_stage_place/record"
}

# rv_bring_outputs: who writes aside and renames, or makes a directory anew, puts it in the place of the
# link; it belongs to the other files of the pipeline, in the place of what was there.
rv_bring_outputs() {
    local path from to away=$rv_stage_place/.replaced-$RV_JOB_ID
    for path in "${rv_stage_outputs[@]}"; do
        from=$RV_SNAPSHOT/$path
        to=$RV_PIPELINE_DIR/$path
        if ! [ -e "$from" ] || [ "$from" -ef "$to" ]; then continue; fi
        rm -rf -- "$away" || return 1
        if [ -e "$to" ] || [ -L "$to" ]; then mv -- "$to" "$away" || return 1; fi
        if ! mv -- "$from" "$to"; then
            if [ -e "$away" ] || [ -L "$away" ]; then mv -- "$away" "$to"; fi
            return 1
        fi
        rm -rf -- "$away"
        ln -s "$to" "$from" || return 1
    done
}

# rv_stage_made: whether this run has written each output, or left it as it was when the stage last
# succeeded.  What else was there before may be half of something: nobody knows who made it.
rv_stage_made() {
    local line path
    while IFS= read -r line; do
        if ! grep -q -x -F -e "$line" "$rv_stage_place/marks" 2>/dev/null; then continue; fi
        path=${line#* }
        if rv_stage_remains "$path"; then
            printf 'rvstate: stage %s has not written %s, which is as it was when the stage last succeeded\n' "$RV_STAGE" "$path" >&2
        elif [ -d "$RV_PIPELINE_DIR/$path" ] && [ -z "$(ls -A -- "$RV_PIPELINE_DIR/$path")" ]; then
            printf 'rvstate: stage %s has written nothing to %s\n' "$RV_STAGE" "$path" >&2
            return 1
        else
            printf '%s\n' "rvstate: stage $RV_STAGE has not written $path: it was there before, perhaps half written by a run that failed" \
                "  → Remove $RV_PIPELINE_DIR/$path, or have the command write it anew." >&2
            return 1
        fi
    done < <(rv_stage_mark)
}

# rv_stage_remains PATH: whether an output holds the same bytes as when the stage last succeeded.
rv_stage_remains() {
    local line rest
    while IFS= read -r line; do
        rest=${line#output }
        if [ "$rest" != "$line" ] && [ "${rest#* }" = "$1" ]; then
            grep -q -x -F -e "$line" "$rv_stage_place/former" 2>/dev/null
            return
        fi
    done <"$RV_RUN_DIR/stage"
    return 1
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
