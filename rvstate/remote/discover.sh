#!/bin/sh
# What an account has to work with: who we are, Slurm's accounts and partitions, places for scratch.
# Only reads.
#   main SCRATCH_TEMPLATE HOME MODULES PARTITIONS NODES CANDIDATE...
# MODULES is `modules` to list environment modules as well, else `-`; PARTITIONS and NODES are the
# command lines that list them (sinfo); CANDIDATE are templates of directories, for scratch.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    modules=$3
    partitions=$4
    nodes=$5
    shift 5
    rv_section account
    printf 'user %s\nhome %s\nscratch %s\nshell %s\nnode %s\n' \
        "$rv_user" "$rv_home" "$rv_scratch" "${SHELL:-/bin/sh}" "$(uname -n)"
    rv_section address
    hostname -f 2>/dev/null
    if command -v sbatch >/dev/null 2>&1; then
        discover_slurm
    fi
    rv_section scratch
    place "$rv_scratch"
    for template in "$@" "${SCRATCH-}" "${PSCRATCH-}" "${WORK-}"; do
        place "$(rv_fill "$template")"
    done
    rv_section groups
    for directory in /standard/* /project/* /projects/* /groups/*; do
        if [ -d "$directory" ] && [ -w "$directory" ]; then printf '%s\n' "$directory"; fi
    done
    if command -v allocations >/dev/null 2>&1; then
        rv_section allocations
        soon allocations 2>/dev/null
    fi
    if [ "$modules" = modules ]; then
        rv_section modules
        list_modules
    fi
    return 0
}

discover_slurm() {
    rv_section slurm
    soon sbatch --version
    config=$(soon scontrol show config 2>/dev/null)
    rv_section cluster
    printf '%s\n' "$config" | sed -n 's/^ClusterName[ ]*= *//p'
    rv_section arrays
    printf '%s\n' "$config" | sed -n 's/^MaxArraySize[ ]*= *//p'
    rv_section accounts
    soon sacctmgr -nP show assoc where user="$rv_user" format=account 2>/dev/null
    rv_section default
    soon sacctmgr -nP show user where name="$rv_user" format=defaultaccount 2>/dev/null
    rv_section partitions
    soon sh -c "$partitions" 2>/dev/null
    rv_section nodes
    soon sh -c "$nodes" 2>/dev/null
}

# An existing directory: whether it can be written to, its free KiB, its path.
place() {
    [ -n "$1" ] && [ -d "$1" ] || return 0
    if [ -w "$1" ]; then word=writable; else word=closed; fi
    free=$(df -Pk "$1" 2>/dev/null | tail -n 1 | awk '{ print $4 }')
    printf '%s %s %s\n' "$word" "${free:-0}" "$1"
}

# `module` is a function of the site's profile; it lists on standard error.
list_modules() {
    if command -v module >/dev/null 2>&1; then
        module -t avail 2>&1
    elif command -v bash >/dev/null 2>&1; then
        soon bash -lc 'module -t avail 2>&1' 2>/dev/null
    fi
}

# A daemon that hangs must not hang us.
soon() {
    if command -v timeout >/dev/null 2>&1; then
        timeout 30 "$@" </dev/null
    else
        "$@" </dev/null
    fi
}
