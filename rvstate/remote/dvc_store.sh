#!/bin/sh
# Bring a commit and what leads to it into the account's bare repository of a project, from which jobs
# that run DVC make their workspaces.
#   main take LOCK SECONDS STORE IDENTITIES FORMERLY COMMIT         the payload is a pack, perhaps thin
#   main fetch LOCK SECONDS STORE IDENTITIES FORMERLY COMMIT URL    from URL, with the account's own keys
# IDENTITIES, FORMERLY: as push.sh has them.  STORE/rvstate-commits lists what has arrived, a commit a
# line, the newest last; a laptop sends only what these do not lead to.
# Where a pack builds on commits that are not here any more the list is emptied, so that the next time
# all is sent.  Says `stored COMMIT`.  It can be killed anywhere and run again.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    verb=$1
    store=$4
    commit=$7
    command -v git >/dev/null || rv_fail "there is no git on this login node" || return 1
    (umask 077 && mkdir -p "${store%/*}") || return 1
    rv_lock "$2" "$3" || return 1
    if [ -s "$store/rvstate-identity" ] && ! printf '%s\n' "$5" "$6" | grep -q -x -F -f "$store/rvstate-identity"; then
        rv_fail "another project of that name has its commits in $store"
        return 1
    fi
    if ! git -C "$store" rev-parse --git-dir >/dev/null 2>&1; then
        # what a killed run or a purge has left of one is completed, and nothing in it is removed
        (umask 077 && git init --quiet --bare --template= "$store") || return 1
    fi
    { cat "$store/rvstate-identity" 2>/dev/null; printf '%s\n' "$5"; } | sort -u |
        rv_store "$store/rvstate-identity" 600 || return 1
    case $verb in
        take) take ;;
        *) fetch "$8" ;;
    esac || return 1
    # what nothing names may be removed by git
    git -C "$store" update-ref "refs/rvstate/commits/$commit" "$commit" || return 1
    { grep -v -x -F -e "$commit" "$store/rvstate-commits" 2>/dev/null; printf '%s\n' "$commit"; } |
        tail -n 50 | rv_store "$store/rvstate-commits" 600 || return 1
    printf 'stored %s\n' "$commit"
}

take() {
    base64 -d >"$store/rvstate-pack" || rv_fail "the commits did not arrive whole" || return 1
    if ! git -C "$store" index-pack --stdin --fix-thin <"$store/rvstate-pack" >/dev/null 2>"$store/rvstate-said" || ! whole; then
        cat "$store/rvstate-said" >&2
        rm -f "$store/rvstate-commits" "$store/rvstate-pack"
        rv_fail "commits are missing or damaged in $store; the next time all of them are sent"
        return 1
    fi
    rm -f "$store/rvstate-pack" "$store/rvstate-said"
}

fetch() {
    GIT_TERMINAL_PROMPT=0
    GIT_SSH_COMMAND=${GIT_SSH_COMMAND:-ssh -o BatchMode=yes -o ForwardAgent=no}
    export GIT_TERMINAL_PROMPT GIT_SSH_COMMAND
    if git -C "$store" cat-file -e "$commit^{commit}" 2>/dev/null && whole; then return 0; fi
    # a branch that is gone may be in the way of another one's name
    git -C "$store" fetch --quiet --no-tags --prune -- "$1" '+refs/heads/*:refs/rvstate/remote/*' ||
        rv_fail "the login node cannot fetch from $1" || return 1
    git -C "$store" cat-file -e "$commit^{commit}" 2>/dev/null ||
        git -C "$store" fetch --quiet --no-tags -- "$1" "$commit" ||
        rv_fail "$1 does not have commit $commit"
}

# Whether all that leads to the commit is here.
whole() {
    git -C "$store" rev-list --objects --quiet "$commit" --not --glob='refs/rvstate/commits/*' 2>"$store/rvstate-said"
}
