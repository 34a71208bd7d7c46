#!/bin/sh
# Speak ssh with a job: standard input and output become an sshd inside it that serves one connection
# of its own user, listens nowhere, and ends with the connection.
#   into.sh JOB NODE RUN_DIR KEYS       on the login node
#   into.sh here RUN_DIR KEYS           on the compute node
# KEYS is the directory with its settings and keys, which remote/door.sh makes.
# shellcheck shell=sh

into() {
    here=$(CDPATH='' cd -P -- "$(dirname -- "$0")" && pwd) || return 1
    if [ "$1" = here ]; then
        serve "$2" "$3"
        return
    fi
    # a controller that is down is no reason to give up for good
    if state=$(squeue --noheader --states=all --jobs="$1" --format='%T %N' 2>&1); then
        case $state in
            *RUNNING* | *SUSPENDED*) on_node "$1" "$2" "${state##* }" || return 1 ;;
            *PENDING* | *CONFIGURING* | *REQUEUED*) say "job $1 does not run yet" || return 1 ;;
            *) say "job $1 has ended; nothing can be reached in it" || return 1 ;;
        esac
    else
        case $state in
            *'Invalid job id'*) say "job $1 has ended; nothing can be reached in it" || return 1 ;;
        esac
    fi
    # otherwise srun holds back what is no whole line
    exec srun --unbuffered --overlap --quiet --jobid="$1" --nodelist="$2" --nodes=1 --ntasks=1 \
        --export=NONE /bin/sh "$here/into.sh" here "$3" "$4"
}

# A job that was started again may be on other nodes; srun would not say so.
on_node() {
    names=$(scontrol show hostnames "$3") || return 0
    if printf '%s\n' "$names" | grep -qxF -- "$2"; then return 0; fi
    say "job $1 was started again and runs on $3 now; ask for it again"
}

serve() {
    PATH=${PATH:-/usr/bin:/bin}:/usr/sbin:/usr/local/sbin:/sbin
    sshd=$(command -v sshd) || say "this node has no sshd, which speaks with the other end" || return 1
    # nodes share the directory, and each counts its processes from one
    exports=$(mktemp "$1/.exports-XXXXXXXX") || return 1
    trap 'rm -f "$exports"' EXIT
    trap 'exit 129' HUP
    trap 'exit 143' TERM
    # what Slurm says of the job; sshd keeps nothing of its own environment
    (export -p | grep -E '^export (SLURM_|CUDA_|ROCR_|GPU_DEVICE_|TMPDIR=)[A-Z0-9_]*' |
        grep -v '^export SLURM_EXPORT_ENV' >"$exports")
    "$sshd" -i -f "$2/sshd_config" \
        -o "ForceCommand=exec bash '$here/inside.sh' '$1' session '$exports'"
    status=$?
    rm -f "$exports"
    return "$status"
}

say() {
    printf 'rvstate: %s\n' "$1" >&2
    return 1
}

into "$@"
