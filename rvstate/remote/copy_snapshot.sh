#!/bin/sh
# Take the snapshot of a run that repeats an earlier one, from that one's snapshot, if it still holds
# what ran.
#   main LOCK SECONDS FROM TO HOW STATE FROM_RUN RUN_DIR
# HOW: copy, or link for a large tree.  STATE: of the tree that ran (model/project.py): every file's
# kind, contents and name must come to it.  FROM_RUN: the earlier run's directory, whose package
# metadata this one needs too; - where there is none.
# The files are those of FROM's manifest: what the earlier job wrote there is no code.  Nothing at TO
# counts before all of it is there and was checked, so this can be killed anywhere and run again.
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
    part=$to.part
    list=$to.list
    # beside them, for nothing in them is ours
    old=${from%/*}/.${from##*/}.manifest
    new=${to%/*}/.${to##*/}.manifest
    [ -d "${from%/*}" ] || { printf 'gone\n'; return 0; }
    rv_lock "$1" "$2" || return 1
    if [ -d "$to" ]; then
        printf 'copied\n'
        return 0
    fi
    if ! [ -d "$from" ] || ! rv_whole "$old"; then
        printf 'gone\n'
        return 0
    fi
    # what was lost is named, so that somebody can tell a purge from an edit
    lost=$(rv_compare "$from" "$old" | grep -a -v '^added ' | head -n 1)
    if [ -n "$lost" ]; then
        printf 'damaged %s\n' "$lost"
        return 0
    fi
    # a run that was killed may have left these
    rm -rf "$part" "$list" && mkdir -p "${to%/*}" && mkdir "$part" || return 1
    lines <"$old" | sed -e '/^\/\//d' -e 's,//.*,,' | lines | sort -z >"$list" || return 1
    if ! { take && bring_package; }; then
        rm -rf "$part" "$list"
        rv_fail "the snapshot could not be copied (is scratch full?)" || return 1
    fi
    if [ "$(tree_state "$part")" != "$state" ]; then
        rm -rf "$part" "$list"
        printf 'damaged contents\n'
        return 0
    fi
    rm -f "$list"
    # the same files, so the same manifest
    ln -f "$old" "$new" && mv "$part" "$to" && printf 'copied\n'
}

# The files of the list, and no others.
take() {
    if [ "$how" = link ]; then
        (cd "$from" && xargs -0 cp -al --parents -t "$part" -- <"$list") && own_writable
    else
        # -m: files start young on a file system with a purge
        (cd "$from" && tar --no-recursion --null -T "$list" -cf -) | (cd "$part" && tar -xmof -)
    fi
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
