#!/bin/sh
# What `dvc exp push` does not say by its exit status: whether the Git remote has the experiment now.
# Travels in front of dvc_kept.sh, and is one file with dvc.sh on the cluster.
# shellcheck shell=sh

# rv_settle REMOTE TAG REFERENCE: after a push.  0: the remote has it.  1: it has not, or does not answer.
# 2: another commit has that name there, so ours was moved and is to be pushed once more.  With the
# same files it is the remote's from now on, and otherwise NAME-TAG: neither takes the other's place.
rv_settle() {
    rv_theirs=$(git ls-remote -- "$1" "$3" </dev/null) || return 1
    rv_theirs=${rv_theirs%%[!0-9a-f]*}
    rv_ours=$(git rev-parse --verify --quiet "$3") || return 1
    [ "$rv_theirs" != "$rv_ours" ] || return 0
    [ -n "$rv_theirs" ] || return 1
    git fetch --quiet --no-tags --no-recurse-submodules -- "$1" "$3" </dev/null || return 1
    if git diff --quiet --no-ext-diff "$rv_theirs" "$rv_ours" --; then
        git update-ref "$3" "$rv_theirs" || return 1
        printf 'rvstate: Git remote %s has this result of %s already\n' "$1" "${3##*/}" >&2
    else
        git update-ref "$3-$2" "$rv_ours" && git update-ref -d "$3" || return 1
        printf 'rvstate: Git remote %s has another result named %s of the same commit; this one is named %s\n' \
            "$1" "${3##*/}" "${3##*/}-$2" >&2
    fi
    return 2
}

# rv_settle_all REMOTE TAG REFERENCE...: each of them.  0: the remote has all.  1: not the one that
# rv_reference names then.  2: some were moved.
rv_settle_all() {
    rv_remote=$1
    rv_tag=$2
    rv_settled=0
    shift 2
    for rv_reference; do
        rv_settle "$rv_remote" "$rv_tag" "$rv_reference"
        case $? in
            0) ;;
            2) rv_settled=2 ;;
            *) return 1 ;;
        esac
    done
    return "$rv_settled"
}
