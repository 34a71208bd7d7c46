#!/bin/bash
# The steps of a job that runs `dvc exp run`, behind those of job.sh; sourced by bash on the compute
# node.  Each step only says what is wanted; the last one, rv_dvc, does it: a git workspace of the
# job's own, the experiment in it, its results saved and pushed, and the workspace gone on every way
# out.  What was found is in the file `dvc` of the run's directory, which `rvstate ps` reads.
# shellcheck shell=bash
# shellcheck disable=SC2154 # rv_* come from job.sh

# rv_dvc_repository HOW SOURCE COMMIT BRANCH NAME URL PREFIX SUBDIRECTORY: where the commits come from.
# HOW: snapshot (SOURCE is the account's bare repository, and what differs from the commit comes from
# the snapshot and from `deleted` in the run's directory), store (the same without a snapshot), or
# queued (the files are those of a commit, see rv_dvc_queued), or clone (SOURCE is cloned).  NAME and URL: the Git remote, empty where the project has none.
# PREFIX: where in the repository the project is, empty or ended by a slash; SUBDIRECTORY: where in
# the project the command runs.
rv_dvc_repository() {
    rv_dvc_how=$1
    rv_dvc_source=$2
    rv_dvc_commit=$3
    rv_dvc_branch=$4
    rv_dvc_remote=$5
    rv_dvc_url=$6
    rv_dvc_prefix=$7
    rv_dvc_subdirectory=$8
    rv_dvc_sources=
    rv_dvc_extensions=
    rv_dvc_script=
    rv_dvc_warned=0
    rv_dvc_files=
    rv_dvc_values=
    rv_dvc_more=()
}

# rv_dvc_parameters NAME=VALUE...: what this experiment sets.
rv_dvc_parameters() {
    rv_dvc_values=$*
}

# rv_dvc_queued INDEX BASELINE FILES ARGUMENT...: what element INDEX of the array runs: the files of commit
# FILES, as an experiment that starts from BASELINE, with these arguments more.
rv_dvc_queued() {
    [ "$1" = "$RV_ARRAY_INDEX" ] || return 0
    rv_dvc_commit=$2
    rv_dvc_files=$3
    shift 3
    rv_dvc_more=("$@")
}

# rv_dvc_author NAME EMAIL: who the commits of experiments are from.
rv_dvc_author() {
    rv_dvc_name=$1
    rv_dvc_email=$2
}

# rv_dvc_places STORE CACHE LINKS NEAR: the account's bare repository, where experiments are kept until
# they are pushed; DVC's cache, .../projects/NAME, whose files all projects share; how files get from it into a
# workspace, the first way that works; and the directory for workspaces, empty for the node's own.
rv_dvc_places() {
    rv_dvc_store=$1
    rv_dvc_cache=$2
    rv_dvc_links=$3
    rv_dvc_near=${4:-${TMPDIR:-/tmp}}
}

# rv_dvc_package SOURCES EXTENSIONS: where below the project imports come from (`src`, `.`), and `yes`
# where compiled extensions are built in the workspace first.
rv_dvc_package() {
    rv_dvc_sources=$1
    rv_dvc_extensions=$2
}

# rv_dvc_environment PLACE SCRIPT VENV: the project's own script makes the environment; PLACE is named by the
# contents of what it reads, so it is made once.
rv_dvc_environment() {
    rv_dvc_place=$1
    rv_dvc_script=$2
    rv_dvc_venv=$3
}

# rv_dvc_warning SECONDS: USR1 comes so long before the end; a program that listens to it gets half.
rv_dvc_warning() {
    # shellcheck disable=SC2034 # the trap of rv_dvc_job reads it
    rv_dvc_warned=$1
}

# rv_dvc PULL ARGUMENT...: run the experiment; its exit code is the job's.  PULL: yes, no, or offline,
# where the node reaches neither remote: what there is in the cache is all there is.
rv_dvc() {
    # kept from the workspace, which is gone when the job ends
    rv_dvc_kept=("${rv_kept[@]}")
    rv_kept=()
    rm -f "$RV_RUN_DIR/.listens" "$RV_RUN_DIR/inside"
    rv_dvc_checkpoints || rv_give_up "cannot make $RV_CHECKPOINT_DIR"
    # shellcheck disable=SC2034 # job.sh calls it
    rv_deliver=rv_dvc_deliver
    rv_await rv_dvc_job "$@"
    rv_end "$rv_status"
}

# rv_dvc_checkpoints: experiments with other parameters, or other queued files, do not take up each
# other's checkpoints.
rv_dvc_checkpoints() {
    local values=${rv_dvc_files:-$rv_dvc_values}
    # all of them may be swept, and the directory named by that (rv_array)
    if [ -z "$values" ] || [ "$values" = "${rv_values-}" ]; then return 0; fi
    rmdir "$RV_CHECKPOINT_DIR" 2>/dev/null
    if [ -n "${RV_ARRAY_INDEX-}" ]; then RV_CHECKPOINT_DIR=${RV_CHECKPOINT_DIR%/*}; fi
    RV_CHECKPOINT_DIR=$RV_CHECKPOINT_DIR/$(printf '%s' "$values" | cksum | tr ' ' -)
    mkdir -p "$RV_CHECKPOINT_DIR"
}

rv_dvc_job() {
    local status
    rv_dvc_work=
    rv_dvc_pid=
    rv_dvc_early=
    rv_dvc_deaf=
    rv_dvc_stopped=
    rv_dvc_pull=$1
    shift
    trap 'rv_dvc_stop 0' TERM INT
    trap 'rv_dvc_stop $((rv_dvc_warned / 2))' USR1
    trap rv_dvc_leave EXIT
    rv_own_variables
    # nobody is there to be asked, and nobody's keys but the account's own count
    export GIT_TERMINAL_PROMPT=0 DVC_NO_ANALYTICS=1
    # the account's repository has no such contents; the snapshot has
    if [ "$rv_dvc_how" != clone ]; then export GIT_LFS_SKIP_SMUDGE=1; fi
    export GIT_SSH_COMMAND="${GIT_SSH_COMMAND:-ssh -o BatchMode=yes -o ForwardAgent=no}"
    # what an earlier start of this job has made is there still
    [ -e "$RV_RUN_DIR/made" ] || rv_dvc_tell "none the experiment never began"
    rv_dvc_make || exit 1
    if [ -n "$rv_dvc_script" ]; then rv_dvc_script_environment || exit 1; fi
    rv_preflight "${RV_PYTHON-}" "$(rv_front "${RV_PYTHON-}")" dvc
    [ -n "$rv_container" ] || command -v dvc >/dev/null ||
        rv_give_up "the environment has no dvc: add it to the project's requirements"
    if [ -n "$rv_dvc_extensions" ]; then rv_extensions; fi
    [ -z "$rv_dvc_stopped" ] || exit 143
    status=0
    if ! rv_dvc_take_up; then
        # for who is killed: stages that have ended are in the cache
        rv_dvc_tell "kept what its stages came to is in DVC's cache on the cluster and not pushed: the job was killed"
        rv_dvc_open
        rv_dvc_experiment "$@" "${rv_dvc_more[@]}"
        status=$?
    fi
    # nothing is left to be ended: what Slurm does not kill goes on to save and push
    trap '' TERM INT USR1
    rv_dvc_deaf=yes
    # argparse's answer in every version of DVC
    [ "$status" != 254 ] ||
        rv_dvc_say "dvc did not take its arguments; it is version $(rv_dvc_call dvc --version 2>/dev/null), and 3 or later is needed"
    if ! [ -e "$RV_RUN_DIR/made" ]; then
        rv_kept=("${rv_dvc_kept[@]}")
        rv_copy_kept loud
    fi
    rv_dvc_results "$status"
    exit "$status"
}

# rv_dvc_take_up: a job that Slurm starts again, after a node failed or another job needed the place, may
# have made its experiment by then: that one is fetched, for made again it would be another.
rv_dvc_take_up() {
    [ -e "$RV_RUN_DIR/made" ] || return 1
    if git fetch --quiet --no-tags -- "$rv_dvc_store" "+refs/rvstate/exps/$(rv_dvc_id)/*:refs/exps/*" &&
        [ -n "$(rv_dvc_refs)" ]; then
        rv_dvc_say "this job was started again, and has made experiment $(rv_dvc_names) before; it is not run a second time"
        return 0
    fi
    rm -f "$RV_RUN_DIR/made"
    return 1
}

# rv_dvc_open: tell who enters the job where its workspace is (inside.sh).
rv_dvc_open() {
    local name
    {
        printf 'if cd -- %q 2>/dev/null; then\n' "$PWD"
        for name in PATH PYTHONPATH VIRTUAL_ENV RV_PYTHON RV_SNAPSHOT RV_DVC_WORKSPACE RV_CHECKPOINT_DIR DVC_SITE_CACHE_DIR; do
            if [ -n "${!name-}" ]; then printf '    export %s=%q\n' "$name" "${!name}"; fi
        done
        printf "else\n    printf 'rvstate: the workspace of this job is on node %%s\\\\n' %q >&2\nfi\n" "$(uname -n)"
    } >"$RV_RUN_DIR/.inside" && mv "$RV_RUN_DIR/.inside" "$RV_RUN_DIR/inside"
}

# rv_dvc_id: what the account's repository calls this job.
rv_dvc_id() {
    printf '%s' "${rv_run_dir##*/}${RV_ARRAY_INDEX:+-$RV_ARRAY_INDEX}"
}

# rv_dvc_tell TEXT: what became of the results, for `rvstate ps`: none, pushed or kept, and why.
rv_dvc_tell() {
    printf '%s\n' "$1" >"$RV_RUN_DIR/.dvc" && mv "$RV_RUN_DIR/.dvc" "$RV_RUN_DIR/dvc"
    # of an array each element tells, and the run only where to look
    if [ "$RV_RUN_DIR" != "$rv_run_dir" ]; then printf 'elements\n' >"$rv_run_dir/dvc"; fi
}

rv_dvc_say() {
    printf 'rvstate: %s\n' "$1" >&2
}

# rv_dvc_do COMMAND...: run it so that a signal is answered while it runs.
rv_dvc_do() {
    # nobody listens any more, nor does what is run
    if [ -n "$rv_dvc_deaf" ]; then
        "$@"
        return
    fi
    rv_start "$@"
    rv_dvc_pid=$rv_step_pid
    if [ -n "$rv_dvc_early" ]; then rv_dvc_end "$rv_dvc_early" "$rv_dvc_pid" & fi
    rv_dvc_early=
    rv_wait
    rv_dvc_pid=
    return "$rv_status"
}

# rv_dvc_call PROGRAM...: a program of the environment.
rv_dvc_call() {
    if [ -n "$rv_container" ]; then
        set -- apptainer exec --nv --bind "$rv_scratch" --bind "$rv_dvc_work" --pwd "$PWD" "$rv_container" "$@"
    fi
    rv_dvc_do "$@"
}

# rv_dvc_stop SECONDS: end what runs, after so long; DVC itself goes on to say how far it came.
rv_dvc_stop() {
    # shellcheck disable=SC2034 # job_signals.sh waits on
    rv_signalled=yes
    rv_dvc_stopped=yes
    if [ -z "$rv_dvc_pid" ]; then
        rv_dvc_early=$1
        return 0
    fi
    rv_dvc_end "$1" "$rv_dvc_pid" &
}

# rv_dvc_deliver SIGNAL: hand it on.  Whether anybody listens to the warning is noted before it is sent:
# a program that does may be gone at once.
rv_dvc_deliver() {
    local pid number
    if [ "$1" = USR1 ]; then
        number=$(kill -l USR1)
        while read -r pid _; do
            # the job's own shell does, and so do its copies
            if [ "$pid" != "$rv_child" ] && rv_catches "$pid" "$number" && ! rv_same "$pid" "$rv_child"; then
                : >"$RV_RUN_DIR/.listens"
            fi
        done < <(rv_tree "$rv_child")
    fi
    rv_to_child "$1"
}

rv_dvc_end() {
    local turn pid count wait=$1
    # where nobody listens there is nothing to wait for
    [ -e "$RV_RUN_DIR/.listens" ] || wait=0
    [ "$1" = 0 ] || rv_dvc_say "the time is nearly over; the stage that runs is ended in $wait s, and what there is is saved"
    for ((turn = 0; turn < wait; turn++)); do
        kill -0 "$2" 2>/dev/null || return 0
        sleep 1
    done
    count=0
    while read -r pid _; do
        if [ "$pid" != "$2" ]; then
            kill -s TERM "$pid" 2>/dev/null
            count=$((count + 1))
        fi
    done < <(rv_tree "$2")
    # it has started nothing
    if [ "$count" = 0 ]; then kill -s TERM "$2" 2>/dev/null; fi
    for ((turn = 0; turn < 8; turn++)); do
        sleep 1
        kill -0 "$2" 2>/dev/null || return 0
    done
    while read -r pid _; do kill -s KILL "$pid" 2>/dev/null; done < <(rv_tree "$2")
}

# rv_dvc_make: the workspace, which is a whole repository of the job's own: DVC commits, and writes to
# its parameters.
rv_dvc_make() {
    local root
    rv_dvc_place_work || rv_give_up "cannot make a workspace in $rv_dvc_near"
    DVC_SITE_CACHE_DIR=$rv_dvc_work/site
    export DVC_SITE_CACHE_DIR
    root=$rv_dvc_work/code
    rv_dvc_root=$root
    if [ "$rv_dvc_how" = clone ]; then rv_dvc_clone "$root"; else rv_dvc_shared "$root"; fi || rv_give_up \
        "there is no workspace of commit $rv_dvc_commit; the lines above say why; nothing was run"
    cd -- "$root" || rv_give_up "the workspace $root is gone"
    # whatever the branch has become since
    if [ -n "$rv_dvc_branch" ]; then set -- -B "$rv_dvc_branch"; else set -- --detach; fi
    git checkout --quiet --force "$@" "$rv_dvc_commit"
    if [ "$(git rev-parse HEAD)" != "$rv_dvc_commit" ]; then
        rv_give_up "commit $rv_dvc_commit is not to be had from $rv_dvc_source; nothing was run"
    fi
    if ! git config user.name "$rv_dvc_name" || ! git config user.email "$rv_dvc_email"; then
        rv_give_up "the workspace $root cannot be configured"
    fi
    if [ -n "$rv_dvc_url" ] && ! git remote add "$rv_dvc_remote" "$rv_dvc_url" 2>/dev/null; then
        git remote set-url "$rv_dvc_remote" "$rv_dvc_url"
    fi
    if [ -n "$rv_dvc_files" ]; then
        git read-tree --reset -u "$rv_dvc_files" ||
            rv_give_up "the files of the queued experiment, commit $rv_dvc_files, cannot be had; nothing was run"
    fi
    if [ "$rv_dvc_how" = snapshot ]; then
        rv_dvc_overlay || rv_give_up "what was not committed could not be put into $root; nothing was run"
    elif [ -f .gitmodules ]; then
        # a relative address is one beside the remote's
        if [ -n "$rv_dvc_branch" ]; then git config "branch.$rv_dvc_branch.remote" "$rv_dvc_remote"; fi
        rv_dvc_do git submodule --quiet update --init --recursive ||
            rv_give_up "the submodules could not be cloned, which the account must be able to; the lines above say why; nothing was run"
    fi
    rv_dvc_contents
    RV_SNAPSHOT=$root/${rv_dvc_prefix%/}
    RV_DVC_WORKSPACE=$root
    export RV_SNAPSHOT RV_DVC_WORKSPACE
    if [ -n "$rv_dvc_sources" ]; then
        PYTHONPATH=$RV_SNAPSHOT/$rv_dvc_sources
        if [ -d "$rv_run_dir/package" ]; then
            PYTHONPATH=$PYTHONPATH:$rv_run_dir/package
            PATH=$rv_run_dir/package/bin:$PATH
        fi
        export PYTHONPATH PATH
    fi
    cd -- "$RV_SNAPSHOT/$rv_dvc_subdirectory" ||
        rv_give_up "commit $rv_dvc_commit has no directory $rv_dvc_prefix$rv_dvc_subdirectory"
    rv_dvc_configure
}

# rv_dvc_place_work: a directory that nobody else reads; sets rv_dvc_work.  Its lock is held before it has
# its name, for who finds it without a holder removes it.
rv_dvc_place_work() {
    local base part work old
    base=rvstate-dvc-$(id -u)
    part=$rv_dvc_near/.$base-$RV_JOB_ID
    work=$rv_dvc_near/$base-$RV_JOB_ID
    rv_dvc_sweep "$rv_dvc_near/$base"
    # a job that was requeued has its number still
    for old in "$part" "$work"; do
        if [ -d "$old" ] && [ -O "$old" ]; then rm -rf "$old"; fi
    done
    (umask 077 && mkdir -p "$rv_dvc_near" && mkdir "$part" && mkdir "$part/site") || return 1
    exec 8>"$part/lock"
    if command -v flock >/dev/null; then flock -n 8; fi
    [ ! -e "$work" ] && mv "$part" "$work" && rv_dvc_work=$work
}

# rv_dvc_sweep BASE: workspaces of jobs that were killed and could not clean up: nobody holds their lock.
rv_dvc_sweep() {
    local old
    command -v flock >/dev/null || return 0
    for old in "$1"-*; do
        if [ -d "$old" ] && [ -O "$old" ] && [ -e "$old/lock" ] && flock -n "$old/lock" true 2>/dev/null; then
            rm -rf "$old"
        fi
    done
}

rv_dvc_clone() {
    local turn
    for turn in 0 5 15; do
        sleep "$turn"
        [ -z "$rv_dvc_stopped" ] || return 1
        rm -rf "$1"
        if rv_dvc_do git clone --quiet --no-checkout --origin "${rv_dvc_remote:-origin}" -- "$rv_dvc_source" "$1"; then
            # the branch may have gone elsewhere since
            git -C "$1" cat-file -e "$rv_dvc_commit^{commit}" 2>/dev/null ||
                rv_dvc_do git -C "$1" fetch --quiet "${rv_dvc_remote:-origin}" "$rv_dvc_commit"
            return
        fi
    done
    printf '  → %s\n' "\`rvstate doctor\` in the project says what the account needs to reach $rv_dvc_source" >&2
    return 1
}

# Commits are read from the account's repository where they are, and those of the job are its own.
rv_dvc_shared() {
    local said
    if ! said=$(git clone --quiet --shared --no-checkout --origin rvstate-store -- "$rv_dvc_source" "$1" 2>&1); then
        rv_dvc_say "git says: $said"
        if git -C "$rv_dvc_source" cat-file -e "$rv_dvc_commit^{commit}" 2>/dev/null; then
            rv_dvc_say "is $rv_dvc_near full? \`workspace\` in [dvc] names another place for workspaces"
        else
            rv_dvc_say "the repository $rv_dvc_source is damaged or gone; submit again"
        fi
        return 1
    fi
    git -C "$1" remote remove rvstate-store
}

# rv_dvc_overlay: the files as they were in front of the user, over those of the commit.
rv_dvc_overlay() {
    (
        # what is not in the project's own directory comes as it was committed
        cd -- "./$rv_dvc_prefix" || exit 1
        if [ -s "$rv_run_dir/deleted" ]; then xargs -0 rm -rf -- <"$rv_run_dir/deleted" || exit 1; fi
        set -o pipefail
        (cd -- "$RV_SNAPSHOT" && tar -cf - .) | tar -xmof - || exit 1
        if [ -n "$rv_errors" ]; then find . -name .git -prune -o -type f ! -perm -200 -exec chmod u+w {} +; fi
        # new files are the experiment's, too
        git add --all .
    )
}

# rv_dvc_contents: no program is to take a git-LFS pointer for the contents that it stands for.
rv_dvc_contents() {
    local why="git-lfs is not on this node" found
    found=$(rv_dvc_pointers)
    if [ -z "$found" ] || [ "$rv_dvc_how" = snapshot ]; then return 0; fi
    if command -v git-lfs >/dev/null; then
        why="\`git lfs pull\` did not bring them"
        # without hooks: an experiment's push is none of git-lfs's
        git lfs install --local --skip-repo >/dev/null && rv_dvc_do git lfs pull "$rv_dvc_remote"
        found=$(rv_dvc_pointers)
    fi
    [ -z "$found" ] || rv_give_up \
        "these are git-LFS pointers and not their contents, for $why: $(printf '%s\n' "$found" | head -n 5 | paste -s -d ' ' -); nothing was run; --mode snapshot sends the contents from your machine"
}

# git-lfs docs/spec.md: a pointer is smaller than 1024 bytes, and this is its first line
rv_dvc_pointers() {
    grep -r -q --include=.gitattributes --exclude-dir=.git 'filter=lfs' . || return 0
    find . -name .git -prune -o -type f -size -1024c \
        -exec grep -l -x 'version https://git-lfs.github.com/spec/v1' {} + | sed 's,^\./,,'
}

# rv_dvc_configure: DVC's own settings for this workspace; nothing of it is committed.
rv_dvc_configure() {
    rv_dvc_at=$PWD
    while ! [ -d "$rv_dvc_at/.dvc" ]; do
        [ "$rv_dvc_at" != "$rv_dvc_root" ] || rv_give_up "there is no .dvc in $PWD or above: run \`dvc init\` and commit it"
        rv_dvc_at=${rv_dvc_at%/*}
    done
    # files are shared by all projects; the run cache is the project's own, for it is pushed as a whole
    mkdir -p "${rv_dvc_cache%/*/*}/files" "$rv_dvc_cache" &&
        { [ -e "$rv_dvc_cache/files" ] || ln -s ../../files "$rv_dvc_cache/files" 2>/dev/null; }
    [ -d "$rv_dvc_cache/files" ] || rv_give_up "cannot make DVC's cache $rv_dvc_cache"
    printf '%s\n' '[core]' '    analytics = false' '    check_update = false' \
        '[cache]' "    dir = \"$rv_dvc_cache\"" "    type = \"$rv_dvc_links\"" >"$rv_dvc_at/.dvc/config.local"
    printf '%s\n' '.dvc/config.local' >>"$rv_dvc_root/.git/info/exclude"
}

# rv_dvc_script_environment: what the project's script makes, made once and by one job; others wait.
rv_dvc_script_environment() {
    local made=$rv_dvc_place/code/$rv_dvc_prefix
    if ! [ -e "$rv_dvc_place/whole" ]; then
        # shellcheck source=/dev/null # what stands beside this file
        rv_dvc_do rv_dvc_build || rv_give_up "$rv_dvc_script failed; the lines above say why"
    fi
    [ -x "$made$rv_dvc_venv/bin/python" ] || rv_give_up "the environment $made$rv_dvc_venv is gone; remove $rv_dvc_place and submit again"
    if ! [ -e "$RV_SNAPSHOT/$rv_dvc_venv" ]; then
        ln -s "$made$rv_dvc_venv" "$RV_SNAPSHOT/$rv_dvc_venv"
        printf '/%s\n' "$rv_dvc_prefix$rv_dvc_venv" >>"$rv_dvc_root/.git/info/exclude"
    fi
    rv_venv "$made$rv_dvc_venv"
    rv_promise "$made$rv_dvc_venv/bin/python"
}

# In a copy of the workspace that stays where it is, for an environment cannot be moved.
rv_dvc_build() {
    local to=$rv_dvc_place/code
    (
        # shellcheck source=/dev/null
        . "${BASH_SOURCE[0]%/*}/lib.sh"
        (umask 077 && mkdir -p "$rv_dvc_place") && rv_lock "$rv_dvc_place/lock" 3600 || exit 1
        [ ! -e "$rv_dvc_place/whole" ] || exit 0
        rv_dvc_say "$rv_dvc_script makes the environment in $to"
        rm -rf "$to" && cp -R -p "$rv_dvc_root" "$to" && cd -- "$to/$rv_dvc_prefix" || exit 1
        if [ -x "$rv_dvc_script" ]; then "./$rv_dvc_script"; else bash "./$rv_dvc_script"; fi >&2 8>&- || exit 1
        [ -x "$rv_dvc_venv/bin/python" ] || rv_fail "$rv_dvc_script made no $rv_dvc_venv/bin/python" || exit 1
        # its age, for `rvstate prune`
        date +%s >"$rv_dvc_place/whole"
    )
}

# rv_dvc_experiment ARGUMENT...: run it; once more where another job was in DVC's way.
rv_dvc_experiment() {
    local turn before status
    for turn in 1 2 3; do
        before=$(rv_log_size)
        rv_dvc_once "$@"
        status=$?
        if [ "$status" = 0 ] || [ -n "$rv_dvc_stopped" ] || ! rv_dvc_collided "$before"; then break; fi
        [ "$turn" = 3 ] ||
            rv_dvc_say "another job of the project wrote to DVC's run cache at the same moment, which ends DVC; it is run again"
    done
    return "$status"
}

# rv_dvc_collided BYTES: whether DVC ended because another job has removed its half of an entry of the run
# cache, or had just finished its own; it says so in the job's log, behind that many bytes.
rv_dvc_collided() {
    rv_log_behind "$1" | grep -q "No such file or directory: '[^']*/runs/[^']*\.tmp'"
}

rv_dvc_once() {
    case $rv_dvc_pull in
        yes) rv_dvc_call dvc exp run --pull --allow-missing "$@" ;;
        no) rv_dvc_call dvc exp run "$@" ;;
        *)
            rv_dvc_call dvc checkout --quiet --allow-missing
            [ -z "$rv_dvc_stopped" ] || return 143
            rv_dvc_call dvc exp run --allow-missing "$@"
            ;;
    esac
}

# rv_dvc_results STATUS: save what the experiment came to, then push it; no failure of that changes the
# job's exit code.  The order matters: whoever is killed half way has lost nothing.
rv_dvc_results() {
    local refs what="the run cache"
    refs=$(rv_dvc_refs)
    if [ -n "$refs" ]; then
        what="experiment $(rv_dvc_names)"
        if ! rv_dvc_save "$refs"; then
            rv_dvc_rescue "$refs"
        elif [ "$1" = 0 ]; then
            : >"$RV_RUN_DIR/made"
        fi
    fi
    rv_dvc_tell "kept $what is on the cluster and not pushed: the job ended first"
    # a stage that was killed may have left its marks
    rm -f "$RV_SNAPSHOT"/.dvc/tmp/rwlock "$rv_dvc_root"/.dvc/tmp/rwlock
    if [ "$rv_dvc_pull" = offline ]; then
        rv_dvc_keep "$what" "this node reaches no remote"
    elif [ "$1" = 0 ]; then
        [ -n "$refs" ] || { rv_dvc_tell "none DVC made no experiment"; return 0; }
        rv_dvc_push_experiments && rv_dvc_tell "pushed experiment $(rv_dvc_names)"
    else
        rv_dvc_push_cache "$what"
    fi
}

rv_dvc_refs() {
    git for-each-ref --format='%(refname)' refs/exps | grep -E '^refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/.'
}

rv_dvc_names() {
    rv_dvc_refs | sed 's,^refs/exps/../[^/]*/,,' | paste -s -d ' ' -
}

# rv_dvc_save REFS: into the account's own repository, under the run; one that is here no more goes there.
rv_dvc_save() {
    local ref place
    place=refs/rvstate/exps/$(rv_dvc_id)
    set -f
    for ref in $1; do
        if git rev-parse --verify --quiet "$ref" >/dev/null; then
            set -- "$@" "+$ref:$place/${ref#refs/exps/}"
        else
            set -- "$@" ":$place/${ref#refs/exps/}"
        fi
    done
    set +f
    shift
    [ -d "$rv_dvc_store" ] || (umask 077 && mkdir -p "$rv_dvc_store" && git init --quiet --bare "$rv_dvc_store") || return 1
    git push --quiet "$rv_dvc_store" "$@"
}

# rv_dvc_rescue REFS: where scratch takes nothing any more, home may.
rv_dvc_rescue() {
    local file
    file=$HOME/rvstate-$(rv_dvc_id).bundle
    rv_dvc_say "the experiments could not be saved in $rv_dvc_store (is scratch full?)"
    # names are words of git's, without blanks
    # shellcheck disable=SC2086
    if git bundle create "$file" $1 2>/dev/null; then
        rv_dvc_say "they are in $file; \`git fetch\` in the project takes them from there"
    else
        rv_dvc_say "and not in $file either, so all depends on the push"
    fi
}

# rv_dvc_keep WHAT WHY: it stays on the cluster, which is said here and by `rvstate ps`.
rv_dvc_keep() {
    rv_dvc_tell "kept $1 is on the cluster and not pushed: $2"
    rv_dvc_say "$1 is kept on the cluster and was not pushed: $2"
    printf '  → %s\n' "\`rvstate dvc pull\` in the project pushes it from the login node, or brings it" >&2
}

rv_dvc_push_experiments() {
    local options=()
    if [ -z "$rv_dvc_url" ]; then
        rv_dvc_keep "experiment $(rv_dvc_names)" "the project has no Git remote"
        return 1
    fi
    if ! rv_dvc_has_remote; then
        rv_dvc_say "the project has no DVC remote, so only commits are pushed; the files stay in $rv_dvc_cache"
        options=(--no-cache)
    fi
    if ! rv_dvc_push_all "${options[@]}"; then
        rv_dvc_keep "experiment $(rv_dvc_names)" "\`dvc exp push $rv_dvc_remote\` failed"
        return 1
    fi
}

# rv_dvc_push_all OPTION...: push every experiment until the Git remote has it, under its name or another.
rv_dvc_push_all() {
    local round refs tag=${rv_run_dir##*/}
    for round in 1 2 3; do
        rv_dvc_push "$@" || return 1
        refs=$(rv_dvc_refs)
        # shellcheck disable=SC2086 # git's names hold no blanks
        rv_settle_all "$rv_dvc_remote" "${tag##*-}" $refs
        case $? in
            0) return 0 ;;
            2) ;;
            *) return 1 ;;
        esac
        rv_dvc_save "$({ printf '%s\n' "$refs"; rv_dvc_refs; } | sort -u)" || return 1
    done
    rv_dvc_say "after $round turns the Git remote still has other results of these names"
    return 1
}

# rv_dvc_push OPTION...: another job may be pushing to the same remotes, so more than once.
rv_dvc_push() {
    local turn status=1 names
    # names are words of git's, without blanks
    read -r -a names < <(rv_dvc_names)
    for turn in 0 3 9; do
        sleep "$turn"
        status=0
        rv_dvc_call dvc exp push "$@" "$rv_dvc_remote" "${names[@]}" || status=$?
        [ "$status" != 0 ] || break
    done
    return "$status"
}

# Whether there is a DVC remote; DVC itself takes seconds to say so where its programs lie far away.
rv_dvc_has_remote() {
    grep -q -s 'remote "' "$rv_dvc_at/.dvc/config" || [ -n "$(rv_dvc_call dvc remote list 2>/dev/null)" ]
}

rv_dvc_push_cache() {
    if ! rv_dvc_has_remote; then
        rv_dvc_tell "kept $1 is in $rv_dvc_cache on the cluster: the project has no DVC remote"
    elif rv_dvc_call dvc push --run-cache; then
        rv_dvc_tell "pushed the run cache"
    else
        rv_dvc_keep "$1" "\`dvc push --run-cache\` failed"
    fi
}

# rv_dvc_leave: on every way out.
rv_dvc_leave() {
    trap '' TERM INT USR1
    rm -f "$RV_RUN_DIR/inside"
    cd /
    if [ -n "$rv_dvc_work" ]; then rm -rf "$rv_dvc_work"; fi
}
