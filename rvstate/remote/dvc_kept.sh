#!/bin/sh
# Experiments that jobs left in the account's repository of a project: listed, pushed, or brought.
#   main list SCRATCH_TEMPLATE HOME STORE RUNS CACHE
# says where STORE and CACHE are (which, as RUNS, the directory of runs, may be below /{scratch}), each
# commit and reference, what became of each run's results, and the receipts of those whose results
# are not pushed.
#   main push STORE RUN_DIR PROGRAM COMMIT REMOTE URL CACHE VARIABLES
# pushes the results of one run from this node: PROGRAM is its environment's dvc, CACHE is DVC's.
# Says `pushed TEXT`.
#   main fetch STORE PROGRAM COMMIT CACHE VARIABLES CODE PREFIX
# fetches what a commit's stages need into DVC's cache, for nodes that cannot; says `note WHY` where
# not all of it is to be had.  CODE: where the project's files lie that count in the place of the
# commit's, or empty; PREFIX: where in the repository the project is, empty or ended by a slash.
#   main commits STORE HAVE WANT    what git packs of the commits WANT that HAVE do not lead to (a line each)
#   main files STORE CACHE WANT ONLY    a tar archive of what DVC's cache has of the commits WANT; of
#                                   these files ONLY (a line each), where that is not empty
# stream, and say their group first and their status last.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    verb=$1
    shift
    case $verb in
        list) list "$@" ;;
        push | fetch) "$verb" "$@" ;;
        *)
            rv_section "group $(ps -o pgid= -p $$ | tr -d ' ')"
            "$verb" "$@"
            status=$?
            # at once behind the last byte, as whoever reads a stream expects it
            printf '@@rvstate %s status %s\n' "$rv_nonce" "$status"
            exit "$status"
            ;;
    esac
}

list() {
    rv_account "$1" "$2"
    rv_real "$3"
    store=$rv_path
    rv_expand "$5"
    rv_real "$rv_text"
    rv_section places
    printf '%s\n%s\n' "$store" "$rv_path"
    rv_real "$4"
    cd -- "$rv_path" || return 1
    rv_section references
    if [ -d "$store" ]; then
        git -C "$store" for-each-ref --format='%(objectname) %(refname)' refs/rvstate/exps || return 1
    fi
    rv_section states
    # /dev/null keeps the names in front
    grep -s '' ./*/dvc ./*/elements/*/dvc /dev/null
    # shellcheck disable=SC2013 # run ids are ours: digits, letters, dashes
    for run in $(grep -s -l '^kept ' ./*/dvc ./*/elements/*/dvc); do
        run=${run#./}
        rv_section "receipt ${run%/dvc}"
        cat "${run%%/*}/receipt.json"
    done
    return 0
}

push() {
    store=$1
    run=$2
    program=$3
    id=${run##*/runs/}
    id=$(printf '%s' "$id" | sed 's,/elements/,-,')
    surroundings "$program" "$8" || return 1
    # what is said here is not the answer
    push_here "$4" "$5" "$6" "$7" </dev/null >&2 || return 1
    printf 'pushed %s\n' "$what" | rv_store "$run/dvc" 600 && printf 'pushed %s\n' "$what"
}

fetch() {
    store=$1
    surroundings "$2" "$5" || return 1
    if ! fetch_here "$3" "$4" "$6" "$7" </dev/null >"$work/said" 2>&1; then
        cat "$work/said" >&2
        printf 'note the login node did not fetch all data of commit %s: %s\n' "$3" \
            "$(grep -e '^ERROR' -e '^fatal' -e '^rvstate' "$work/said" | tail -n 1)"
    fi
}

fetch_here() {
    workspace "$1" "$2" || return 1
    # what data there is, these files say, committed or not
    if [ -d "$3" ]; then
        (cd -- "$3" && find . \( -name '*.dvc' -o -name dvc.yaml -o -name dvc.lock -o -name 'params.*' \
            -o -path '*/.dvc/config' \) -type f -print0 | tar -cf - --null -T -) |
            tar -xmf - -C "$work/code/$4" || return 1
    fi
    dvc fetch --run-cache
}

# surroundings PROGRAM VARIABLES: a directory for a workspace that goes when this ends, and what a job
# has in its environment.
surroundings() {
    [ -x "$1" ] || rv_fail "there is no $1 on this login node" || return 1
    work=$(mktemp -d "$store.push-XXXXXX") || return 1
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM PIPE
    PATH=${1%/*}:$PATH
    GIT_TERMINAL_PROMPT=0
    GIT_SSH_COMMAND=${GIT_SSH_COMMAND:-ssh -o BatchMode=yes -o ForwardAgent=no}
    GIT_LFS_SKIP_SMUDGE=1
    DVC_NO_ANALYTICS=1
    DVC_SITE_CACHE_DIR=$work/site
    export PATH GIT_TERMINAL_PROMPT GIT_SSH_COMMAND GIT_LFS_SKIP_SMUDGE DVC_NO_ANALYTICS DVC_SITE_CACHE_DIR
    # shellcheck source=/dev/null # the user's own variables, as a job has them
    if [ -r "$2" ]; then . "$2"; fi
    return 0
}

# workspace COMMIT CACHE: a checkout of the commit, with DVC's cache; we are in it then.
workspace() {
    git clone --quiet --shared --no-checkout -- "$store" "$work/code" 2>/dev/null && cd -- "$work/code" &&
        git checkout --quiet --detach "$1" || return 1
    at=$(find . -name .git -prune -o -type d -name .dvc -print | head -n 1)
    [ -n "$at" ] || rv_fail "commit $1 has no .dvc" || return 1
    # as the job makes it (dvc.sh)
    mkdir -p "${2%/*/*}/files" "$2" && { [ -e "$2/files" ] || ln -s ../../files "$2/files" 2>/dev/null; }
    printf '%s\n' '[core]' '    analytics = false' '[cache]' "    dir = \"$2\"" >"$at/config.local"
    cd -- "$at/.." || return 1
}

# push_here COMMIT REMOTE URL CACHE
push_here() {
    [ -n "$3" ] || rv_fail "the project has no Git remote" || return 1
    if ! git -C "$store" cat-file -e "$1^{commit}" 2>/dev/null; then
        git -C "$store" fetch --quiet --no-tags --prune -- "$3" '+refs/heads/*:refs/rvstate/remote/*' || return 1
    fi
    workspace "$1" "$4" || return 1
    git fetch --quiet origin "refs/rvstate/exps/$id/*:refs/exps/*" && git remote remove origin &&
        git remote add "$2" "$3" || return 1
    if [ -z "$(references)" ]; then
        what="the run cache"
        dvc push --run-cache
        return
    fi
    option=
    if [ -z "$(dvc remote list)" ]; then option=--no-cache; fi
    for round in 1 2 3; do
        before=$(references)
        # names are words of git's, without blanks
        # shellcheck disable=SC2046
        dvc exp push ${option:+"$option"} "$2" $(names) || return 1
        # shellcheck disable=SC2086 # as above
        rv_settle_all "$2" "$(printf '%s' "${id#????????-??????-}" | cut -c 1-8)" $before
        case $? in
            0)
                what="experiment $(names | paste -s -d ' ' -)"
                return
                ;;
            2) keep || return 1 ;;
            *) rv_fail "Git remote $2 does not have ${rv_reference##*/} after the push" || return 1 ;;
        esac
    done
    rv_fail "after $round turns Git remote $2 still has other results of these names"
}

references() {
    git for-each-ref --format='%(refname)' refs/exps
}

names() {
    references | sed 's,^refs/exps/../[^/]*/,,'
}

# keep: what has another name or commit now, in the account's repository, too.
keep() {
    git push --quiet --prune "$store" "+refs/exps/*:refs/rvstate/exps/$id/*"
}

commits() {
    { printf '%s\n' "$3"; printf '%s\n' "$2" | sed -n 's/^./^&/p'; } |
        git -C "$1" pack-objects --revs --thin --stdout -q --delta-base-offset
}

files() {
    cd -- "$2" || return 1
    for commit in $3; do
        git -C "$1" ls-tree -r -z --name-only "$commit" | tr '\n\000' '\000\n' | grep -a -E '(^|/)dvc\.lock$|\.dvc$' |
            while IFS= read -r name; do
                # a name with a line break in it is left out
                git -C "$1" show "$commit:$name" 2>/dev/null
            done
    done | digests >"$2/.wanted-$$"
    # directories are lists of files
    grep '\.dir$' "$2/.wanted-$$" | while IFS= read -r name; do
        sed 's/[{}]/\n/g' "$(place "$name")" 2>/dev/null
    done | digests >"$2/.more-$$"
    cat "$2/.wanted-$$" "$2/.more-$$" | sort -u | only "$4" | while IFS= read -r name; do
        path=$(place "$name")
        if [ -f "$path" ]; then printf '%s\n' "$path"; fi
    done >"$2/.list-$$"
    tar -chf - -T "$2/.list-$$"
    status=$?
    rm -f "$2/.wanted-$$" "$2/.more-$$" "$2/.list-$$"
    return "$status"
}

# only NAMES: those lines alone, or all.
only() {
    if [ -n "$1" ]; then grep -x -F -e "$1"; else cat; fi
}

# The digests that DVC's own files name (dvc.lock, *.dvc, and directories in the cache).
digests() {
    sed -n 's/.*md5"*: *"*\([0-9a-f]\{32\}\(\.dir\)\{0,1\}\).*/\1/p' | sort -u
}

place() {
    rest=${1#??}
    printf 'files/md5/%s/%s' "${1%"$rest"}" "$rest"
}
