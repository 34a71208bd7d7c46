#!/bin/sh
# Which paths on scratch keepalive looks after: those of rvstate that something still needs.
#   needed          ask the queue, once
#   points PLACE    the paths at which a place begins, each ended by NUL
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, the rest from keepalive.sh, which travels behind

# What the user's jobs need: set jobs to the queue and the environments in its runs' batch scripts;
# asked is no where the queue does not answer, and everything counts as needed then.
needed() {
    jobs=''
    asked=yes
    [ -n "$queue" ] || return 0
    set -- "$rv"/envs/*/.generations/*/* "$rv_scratch"/rv-workspaces/*/*/snapshots/*
    # where there is nothing to decide about the scheduler is not asked
    if ! [ -e "$1" ] && ! [ -e "$2" ] && [ $# = 2 ]; then return 0; fi
    # the command line that is given says $rv_user
    jobs=$(eval "$queue" 2>/dev/null) || asked=no
    for id in $(printf '%s\n' "$jobs" | grep -o '[0-9]\{8\}-[0-9]\{6\}-[0-9a-f]\{8\}' | sort -u); do
        jobs=$jobs$rv_newline$(grep -s '^rv_environment ' "$rv/runs/$id/job.sh")
    done
}

# Whether no directory on the way from scratch to $path is a link.
straight() {
    above=${path%/*}
    while [ "$above" != "$rv_scratch" ]; do
        if [ -L "$above" ]; then return 1; fi
        above=${above%/*}
    done
}

# points PLACE: the paths at which one place begins, each ended by NUL.
points() {
    name=$1
    set --
    case $name in
        account)
            if [ -L "$rv" ]; then return 0; fi
            for path in "$rv"/*; do
                case ${path##*/} in
                    # the last one's dates are facts
                    envs | lock* | keepalive*) ;;
                    *) if [ -e "$path" ]; then set -- "$@" "$path"; fi ;;
                esac
            done
            ;;
        environments)
            current=''
            for path in "$rv"/envs/*/*; do
                if ! [ -L "$path" ] || ! straight; then continue; fi
                set -- "$@" "$path"
                target=$(readlink "$path")
                case $target in
                    /*) ;;
                    *) target=${path%/*}/$target ;;
                esac
                current=$current$rv_newline$target
            done
            for path in "$rv"/envs/*/.generations/*/*; do
                if [ -d "$path" ] && straight && in_use; then set -- "$@" "$path"; fi
            done
            # what a project's own script made (dvc.sh)
            for path in "$rv"/envs/*/.scripted/*; do
                if [ -d "$path" ] && straight; then set -- "$@" "$path"; fi
            done
            ;;
        workspaces)
            # commits, and experiments that may be nowhere else
            for path in "$rv_scratch"/rv-workspaces/*/*/* "$rv_scratch"/rv-workspaces/*/.repository; do
                if [ -e "$path" ] && [ "${path##*/}" != snapshots ] && straight; then set -- "$@" "$path"; fi
            done
            for path in "$rv_scratch"/rv-workspaces/*/*/snapshots/*; do
                if [ -d "$path" ] && straight && wanted; then
                    set -- "$@" "$path"
                    manifest=${path%/*}/.${path##*/}.manifest
                    if [ -e "$manifest" ]; then set -- "$@" "$manifest"; fi
                fi
            done
            ;;
        *)
            path=$rv_scratch/.cache/$name
            if [ -d "$path" ] && ! [ -L "$path" ] && straight; then set -- "$path"; fi
            ;;
    esac
    [ $# -gt 0 ] || return 0
    printf '%s\0' "$@"
}

# Whether the generation $path is a branch's newest or a layer of that, or a job in the queue has it.
in_use() {
    [ "$asked" = yes ] || return 0
    case $path in
        */layer-*)
            # its second line is `base NAME` (layer.sh)
            { read -r base && read -r _ base; } <"$path/.rvstate/recipe" 2>/dev/null || base=''
            case $current$rv_newline in
                *"$rv_newline${path%/*}/$base$rv_newline"*) return 0 ;;
            esac
            ;;
    esac
    case $current$rv_newline in
        *"$rv_newline$path$rv_newline"*) return 0 ;;
    esac
    case $jobs in
        *"$path"*) return 0 ;;
    esac
    return 1
}

# Whether a job in the queue needs the snapshot $path, or the user has it kept.
wanted() {
    [ "$asked" = yes ] || return 0
    id=$(printf '%s' "${path##*/}" | sed 's/.*-\([0-9]\{8\}-[0-9]\{6\}-[0-9a-f]\{8\}\)$/\1/')
    if [ -e "$rv/runs/$id/keep" ]; then return 0; fi
    case $jobs in
        *"$id"*) return 0 ;;
    esac
    return 1
}
