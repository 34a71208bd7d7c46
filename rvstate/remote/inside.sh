#!/bin/bash
# Be inside a running job: its modules, environment, variables and secrets, and then something else.
#   inside.sh RUN_DIR shell TERM        a shell for a person
#   inside.sh RUN_DIR file FILE         a line of shell in FILE, which is removed
#   inside.sh RUN_DIR session FILE      what sshd was asked for, with the exports in FILE
# The surroundings are the run's own batch script up to its line rv_enter; nothing behind it runs.
# shellcheck shell=bash

inside() {
    local run=$1
    rv_mode=$2
    rv_about=$3
    # sshd begins with an environment of its own
    # shellcheck source=/dev/null
    if [ "$rv_mode" = session ] && [ -r "$rv_about" ]; then . "$rv_about"; fi
    login_surroundings
    if ! grep -qx rv_enter "$run/job.sh"; then
        printf 'rvstate: this run was submitted by an older rvstate and cannot be entered; submit it again\n' >&2
        exit 1
    fi
    if grep -q '^rv_nodes ' "$run/job.sh"; then whole_job; fi
    # job.sh knows by it that this is not the job itself
    # shellcheck disable=SC2034
    rv_entered=$$
    rv_go_here=$PWD
    rv_whole=
    eval "$(sed '/^rv_enter$/,$d' "$run/job.sh")
rv_whole=yes"
    if [ -z "$rv_whole" ]; then
        printf 'rvstate: the batch script %s cannot be read\n' "$run/job.sh" >&2
        exit 1
    fi
    # shellcheck source=/dev/null disable=SC2154 # set by rv_variables
    if [ -n "$rv_env_file" ] && [ -r "$rv_env_file" ]; then . "$rv_env_file"; fi
    # a job of DVC works in a workspace of its own (dvc.sh)
    # shellcheck source=/dev/null
    if [ -r "$RV_RUN_DIR/inside" ]; then . "$RV_RUN_DIR/inside"; fi
    # of a stage, which go over the user's own
    # shellcheck disable=SC2154 # set by rv_begin
    if [ "${#rv_stage_variables[@]}" -gt 0 ]; then export "${rv_stage_variables[@]}"; fi
    become
}

# What a batch job starts with: its user's login environment, and what Slurm sets.
login_surroundings() {
    local file
    # without HOME, ~ is what the password database says
    HOME=${HOME:-$(cd ~ && pwd)}
    USER=${USER:-$(id -un)}
    LOGNAME=${LOGNAME:-$USER}
    SHELL=${SHELL:-/bin/bash}
    PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
    export HOME USER LOGNAME SHELL PATH
    for file in "$HOME/.bash_profile" "$HOME/.bash_login" "$HOME/.profile"; do
        [ -r "$file" ] && break
    done
    # shellcheck source=/dev/null
    {
        if [ -r /etc/profile ]; then . /etc/profile; fi
        if [ -r "$file" ]; then . "$file"; fi
    } </dev/null >/dev/null 2>&1
}

# A step on one node does not see how many the job has.
whole_job() {
    local count names
    read -r count names < <(squeue --noheader --jobs="$SLURM_JOB_ID" --format='%D %N')
    SLURM_JOB_NUM_NODES=$count
    SLURM_JOB_NODELIST=$names
    SLURM_JOB_CPUS_PER_NODE=${SLURM_JOB_CPUS_PER_NODE:-${SLURM_CPUS_ON_NODE:-1}}
    export SLURM_JOB_NUM_NODES SLURM_JOB_NODELIST SLURM_JOB_CPUS_PER_NODE
}

# mark: tell hold.sh that somebody is inside, for as long as this process lives.
mark() {
    if [ -d "$RV_RUN_DIR/hold" ]; then : >"$RV_RUN_DIR/hold/in.$(uname -n).$$"; fi
}

# stay: a shell in an allocation that is held for it.  That it was left is told to hold.sh, unless
# the connection went away under it.
stay() {
    local status
    rv_gone=
    trap 'rv_gone=yes' HUP TERM
    # these are the shell's; ignored ones would be ignored in it as well
    trap : INT QUIT
    bash --norc --noprofile -i
    status=$?
    # first the mark: hold.sh forgets that a shell was left while somebody is inside
    rm -f "$RV_RUN_DIR/hold/in.$(uname -n).$$"
    if [ -z "$rv_gone" ] && [ "$status" != 129 ]; then printf '%s\n' "$status" >"$RV_RUN_DIR/hold/left"; fi
    exit "$status"
}

become() {
    local line path
    case $rv_mode in
        shell)
            TERM=$rv_about
            export TERM
            PS1="(job $RV_JOB_ID) \\u@\\h:\\w\\$ "
            export PS1
            mark
            # start-up files would put their own paths in front of the job's
            [ -d "$RV_RUN_DIR/hold" ] || exec bash --norc --noprofile -i
            stay
            ;;
        file)
            line=$(cat "$rv_about" && printf .) || exit 1
            rm -f "$rv_about"
            mark
            exec bash -c "${line%.}"
            ;;
        session)
            # programs that copy files and editors begin at home, as on any other host
            cd "$HOME" || cd "$rv_go_here" || exit 1
            mark
            case ${SSH_ORIGINAL_COMMAND-} in
                '')
                    cd "${RV_SNAPSHOT:-$HOME}" || exit 1
                    rv_mode=shell
                    rv_about=${TERM:-dumb}
                    become
                    ;;
                *sftp-server | internal-sftp)
                    for path in /usr/libexec/openssh /usr/lib/openssh /usr/lib/ssh /usr/libexec; do
                        [ -x "$path/sftp-server" ] && exec "$path/sftp-server"
                    done
                    printf 'rvstate: this node has no sftp-server\n' >&2
                    exit 127
                    ;;
                *) exec bash -c "$SSH_ORIGINAL_COMMAND" ;;
            esac
            ;;
    esac
}

inside "$@"
