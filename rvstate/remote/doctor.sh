#!/bin/sh
# The state of an account's surroundings: places, quota, programs, environments, clock, Slurm.  Only
# reads.
#   main SCRATCH_TEMPLATE HOME GIT PLACES PROGRAM...
# PLACES is empty, or for a project with DVC paths, one a line, which may hold {user} and {home}; GIT is
# then the URL of its Git remote, or empty.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh and environments.sh, which travel in front

main() {
    rv_account "$1" "$2"
    git_url=$3
    places=$4
    shift 4
    rv_section account
    printf 'user %s\nhome %s\nscratch %s\nshell %s\nnode %s\nclock %s\nzone %s\numask %s\n' \
        "$rv_user" "$rv_home" "$rv_scratch" "${SHELL:-/bin/sh}" "$(uname -n)" \
        "$(date +%s)" "$(date +'%z %Z')" "$(umask)"
    place home "$rv_home"
    place scratch "$rv_scratch"
    quota_report
    rv_section environments
    rv_environments "$rv_scratch/.rv/envs"
    for program in "$@"; do
        rv_section "program $program"
        PATH=$PATH:$rv_home/.local/bin:$rv_scratch/.rv/tools/bin command -v "$program"
    done
    rv_section "program module"
    if command -v module >/dev/null 2>&1; then
        printf 'a function of the shell\n'
    elif command -v bash >/dev/null 2>&1; then
        soon bash -lc 'command -v module' 2>/dev/null | tail -n 1
    fi
    if command -v scontrol >/dev/null 2>&1; then
        rv_section controller
        soon scontrol ping 2>&1
        rv_section accounts
        soon sacctmgr -nP show assoc where user="$rv_user" format=account 2>/dev/null
    fi
    if [ -n "$places" ]; then data_project; fi
    return 0
}

# What a job of a project with DVC meets: nobody who answers a question, and no agent.
data_project() {
    rv_section agent
    if [ -S "${SSH_AUTH_SOCK-}" ]; then printf 'there\n'; fi
    rv_section places
    printf '%s\n' "$places" | while IFS= read -r template; do
        path=$(rv_fill "$template")
        if [ "$path" = "$rv_home" ]; then
            printf 'home %s\n' "$path"
        elif [ -w "$path" ]; then
            printf 'writable %s\n' "$path"
        elif [ -e "$path" ]; then
            printf 'there %s\n' "$path"
        fi
    done
    [ -n "$git_url" ] || return 0
    rv_section git-remote
    if ! command -v git >/dev/null 2>&1; then
        printf 'none\n'
        return 0
    fi
    said=$(
        unset SSH_AUTH_SOCK SSH_ASKPASS GIT_ASKPASS
        GIT_TERMINAL_PROMPT=0
        GIT_SSH_COMMAND=${GIT_SSH_COMMAND:-ssh -o BatchMode=yes -o ForwardAgent=no -o ConnectTimeout=10}
        export GIT_TERMINAL_PROMPT GIT_SSH_COMMAND
        if command -v timeout >/dev/null 2>&1; then set -- timeout 20; else set --; fi
        "$@" git ls-remote -- "$git_url" HEAD 2>&1 >/dev/null </dev/null
    )
    printf '%s\n%s\n' "$?" "$said"
}

# place NAME PATH: what it is, and what is free there.
place() {
    rv_section "place $1"
    if ! [ -d "$2" ]; then
        printf 'missing\n'
        return
    fi
    if [ -w "$2" ]; then printf 'writable\n'; else printf 'closed\n'; fi
    printf 'type %s\n' "$(stat -f -c %T "$2" 2>/dev/null)"
    # total, used, free in KiB, then in inodes; the POSIX form of df has no inodes
    printf 'bytes %s\n' "$(df -Pk "$2" 2>/dev/null | tail -n 1 | awk '{ print $2, $3, $4 }')"
    printf 'inodes %s\n' "$(df -Pi "$2" 2>/dev/null | tail -n 1 | awk '{ print $2, $3, $4 }')"
}

# What the site's own tools say of the user's share; df only knows the whole file system.
quota_report() {
    for tool in hdquota quota; do
        command -v "$tool" >/dev/null 2>&1 || continue
        rv_section "quota $tool"
        soon "$tool" 2>/dev/null
    done
    if command -v lfs >/dev/null 2>&1 && [ -d "$rv_scratch" ]; then
        rv_section "quota lfs"
        soon lfs quota -u "$rv_user" "$rv_scratch" 2>/dev/null
    fi
}

# A daemon or file server that hangs must not hang us.
soon() {
    if command -v timeout >/dev/null 2>&1; then
        timeout 30 "$@" </dev/null
    else
        "$@" </dev/null
    fi
}
