#!/bin/sh
# What became of the stages of a pipeline, and what their files hold now.
#   main SCRATCH_TEMPLATE HOME DATA RUNS QUEUE STAGES PATHS
# DATA: the pipeline's directory, perhaps below /{scratch}; RUNS: the directory of runs.  QUEUE: a
# command line that lists the jobs that wait or run, with the ids of their runs.  STAGES and PATHS: a
# line each; relative paths begin in DATA.
# Says `active STAGE RUN JOB` in the section stages for each whose last run waits or runs, each
# record in a section `record STAGE` (`begun` where there is none since it began), and `DIGEST PATH`, `- PATH` in the section digests.  Writes
# nothing but its own table of what it read (DATA/.rvstate/table).
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    rv_real "$3"
    data=$rv_path
    rv_real "$4"
    runs=$rv_path
    # shellcheck disable=SC2034 # for the command line that is given
    rv_user=$(id -un)
    queue=$5
    stages=$6
    paths=$7
    begun=''
    rv_section stages
    for stage in $stages; do
        place=$data/.rvstate/stages/$stage
        if [ -s "$place/run" ] && read -r run <"$place/run" && [ -d "$runs/$run" ]; then under_way; fi
    done
    if [ -n "$begun" ]; then say_begun || return 1; fi
    for stage in $stages; do
        place=$data/.rvstate/stages/$stage
        if [ -s "$place/record" ]; then
            rv_section "record $stage"
            cat "$place/record"
        elif [ -s "$place/run" ]; then
            rv_section "record $stage"
            printf 'begun\n'
        fi
    done
    rv_section digests
    digest_all
}

# Whether the stage's last run has not ended, as far as the run itself knows.
under_way() {
    if [ -e "$runs/$run/exit" ] || ! [ -s "$runs/$run/job" ]; then return 0; fi
    begun="$begun$stage $run $(cat "$runs/$run/job")$rv_newline"
}

# The scheduler knows which of them wait or run.
say_begun() {
    listed=$(eval "$queue") ||
        rv_fail "the scheduler does not say whether a stage waits or runs" || return 1
    printf '%s' "$begun" | while read -r stage run job; do
        if printf '%s\n' "$listed" | grep -q -F -e "$run"; then
            printf 'active %s %s %s\n' "$stage" "$run" "$job"
        fi
    done
}

digest_all() {
    # what paths are given stands in a line each
    set --
    while IFS= read -r path; do
        if [ -n "$path" ]; then set -- "$@" "$path"; fi
    done <<EOT
$paths
EOT
    [ $# -gt 0 ] || return 0
    if ! [ -d "$data" ]; then
        # only absolute ones can be there
        work=$(mktemp -d) || return 1
        rv_path_digests / "$work" "$@"
        status=$?
        rm -rf "$work"
        return "$status"
    fi
    (umask 077 && mkdir -p "$data/.rvstate") || return 1
    work=$data/.rvstate/work-$(uname -n)-$$
    rm -rf "$work" && mkdir "$work" || return 1
    cat "$data/.rvstate/table" "$data"/.rvstate/stages/*/table >"$work/known" 2>/dev/null
    rv_path_digests "$data" "$work" "$@"
    status=$?
    if [ "$status" = 0 ]; then mv -f "$work/table" "$data/.rvstate/table"; fi
    rm -rf "$work"
    return "$status"
}
