#!/bin/sh
# Take the snapshot of a run that repeats an earlier one, from what the cluster still has of its tree.
#   main LOCK SECONDS FROM TO HOW STATE FROM_RUN RUN_DIR
# FROM: the earlier run's snapshot.  Where it is gone or was changed, the workspace's code serves if it
# is that tree now, or the snapshot of another run of it.  HOW: copy, or link for a large tree.  STATE:
# of the tree that ran (model/project.py): every file's kind, contents and name must come to it.
# FROM_RUN: the earlier run's directory, whose package metadata this one needs too; - where there is
# none.  Only files of the tree count: what a job wrote beside them is no code.  Nothing at TO counts
# before all of it is there and was checked, so this can be killed anywhere and run again.
# Says `copied`, `gone`, or `damaged WHY`.
# shellcheck shell=sh
# shellcheck disable=SC2016 # what xargs runs is expanded there
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    from=$3
    to=$4
    how=$5
    state=$6
    from_run=$7
    run=$8
    snapshots=${to%/*}
    root=${snapshots%/*}
    part=$to.part
    list=$to.list
    why=gone
    failed=no
    [ -d "$root" ] || { printf 'gone\n'; return 0; }
    rv_lock "$1" "$2" || return 1
    if [ -d "$to" ]; then
        printf 'copied\n'
        return 0
    fi
    mkdir -p "$snapshots" && bring_package || return 1
    if from_snapshot "$from" || from_code || from_others; then
        # beside it, for nothing in it is ours
        rv_manifest "$part" "$snapshots/.${to##*/}.manifest" && rm -f "$list" && mv "$part" "$to" &&
            printf 'copied\n'
        return
    fi
    rm -rf "$part" "$list" "$run/package"
    rmdir "$run" 2>/dev/null
    if [ "$failed" = yes ]; then
        rv_fail "the snapshot could not be copied (is scratch full?)" || return 1
    fi
    printf '%s\n' "$why"
}

# from_snapshot SNAPSHOT: whether it holds the tree, which is in part then.
from_snapshot() {
    manifest=${1%/*}/.${1##*/}.manifest
    [ -d "$1" ] && rv_whole "$manifest" || return 1
    # what was lost is named, so that somebody can tell a purge from an edit
    lost=$(rv_compare "$1" "$manifest" | grep -a -v '^added ' | head -n 1)
    if [ -n "$lost" ]; then
        note "damaged $lost"
        return 1
    fi
    lines <"$manifest" | sed -e '/^\/\//d' -e 's,//.*,,' | lines | sort -z >"$list" || return 1
    take "$1" "$how"
}

# The code goes on changing, so no file of it is shared.
from_code() {
    [ "$(cat "$root/manifest" 2>/dev/null)" = "$state" ] && [ -f "$root/files" ] || return 1
    sort -z "$root/files" >"$list" && take "$root/code" copy
}

from_others() {
    # run ids are ours: digits, letters, dashes
    others=$(cd "${run%/*}" && find . -path './*/*' -prune -name receipt.json \
        -exec grep -l -F -e "\"tree\": \"$state\"" {} + | sed -e 's,^\./,,' -e 's,/.*,,')
    for other in $others; do
        for snapshot in "$snapshots"/*-"$other"; do
            if [ "$snapshot" != "$from" ] && from_snapshot "$snapshot"; then return 0; fi
        done
    done
    return 1
}

# note REASON: the first one counts.
note() {
    if [ "$why" = gone ]; then why=$1; fi
}

# take TREE HOW: the files of the list, and no others; whether they are what ran.
take() {
    # a run that was killed may have left it
    rm -rf "$part" && mkdir "$part" || return 1
    if [ "$2" = link ]; then
        (cd "$1" && xargs -0 cp -al --parents -t "$part" -- <"$list") && own_writable
    else
        # -m: files start young on a file system with a purge
        (cd "$1" && tar --no-recursion --null -T "$list" -cf -) | (cd "$part" && tar -xmof -)
    fi || failed=yes
    [ "$(tree_state "$part")" = "$state" ] && return 0
    note 'damaged contents'
    return 1
}

# A file that the earlier job could write to is its own, and this one gets its own, too.
own_writable() {
    (cd "$part" && xargs -0 sh -c 'find "$@" -prune -type f -perm -200 -print0' sh <"$list") |
        (cd "$part" && xargs -0 sh -c 'for file; do
            cp -p -- "$file" "$file.rvstate-own" && mv -f -- "$file.rvstate-own" "$file" || exit 1
        done' sh)
}

bring_package() {
    (umask 077 && mkdir -p "$run") || return 1
    [ "$from_run" != - ] && [ -d "$from_run/package" ] || return 0
    rm -rf "$run/package" && cp -R -p "$from_run/package" "$run/"
}

# tree_state DIRECTORY: the state of the listed files in it.
tree_state() {
    (cd "$1" && xargs -0 sh -c '
        for file; do
            if [ -f "$file" ] && ! [ -L "$file" ]; then printf "%s\0" "$file"; fi
        done | xargs -0 '"$(digest_program)"' -- | sed -e "s/^\\\\//" -e "s/ .*//" | for file; do
            if [ -L "$file" ]; then
                # the dot keeps line breaks at its end
                text=$(readlink "$file" && printf .)
                kind=l
                digest=$(printf %s "${text%??}" | od -A n -v -t x1 | tr -d " \n")
            else
                if [ -x "$file" ]; then kind=x; else kind=f; fi
                read -r digest
            fi
            printf "%s %s %s\0" "$kind" "$digest" "${file#./}"
        done' sh <"$list") >"$part.records"
    rv_digest "$part.records"
    rm -f "$part.records"
}

digest_program() {
    if command -v sha256sum >/dev/null 2>&1; then printf sha256sum; else printf 'shasum -a 256'; fi
}

# NULs and line breaks change places, so that sed works on whole names.
lines() {
    tr '\n\000' '\000\n'
}
