#!/bin/sh
# Cache links, and the migration of what lies where a link should be.
#   main LOCK SECONDS RECORDS REMOVE (ACTION PATH TARGET FORMER)...
# RECORDS: the directory that remembers originals; REMOVE: yes removes them when verified again.
# ACTION: create, update (a link of ours led to FORMER), migrate (a real directory), remove
# (PATH is an original, TARGET its record).  Says "done N [FACTS]" or "failed N REASON" for each.
#
# Killed anywhere, nothing is lost and the next run finishes: files are copied before anything is
# renamed, the rename is one step, and the link comes last.  Of two files with one name the newer
# (by modification time) takes the place; the other survives in TARGET.rvstate-replaced or in the
# original.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_lock "$1" "$2" || return 1
    records=$3
    remove=$4
    shift 4
    (umask 077 && mkdir -p "$records") || return 1
    number=0
    failed=0
    while [ $# -ge 4 ]; do
        if reason=$(act "$@" 2>&1); then
            printf 'done %s %s\n' "$number" "$reason"
        else
            failed=1
            printf 'failed %s %s\n' "$number" "$(printf '%s' "$reason" | tail -n 1)"
        fi
        number=$((number + 1))
        shift 4
    done
    return "$failed"
}

act() {
    path=$2
    target=$3
    case $1 in
        create) link ;;
        update) repoint "$4" ;;
        migrate) migrate ;;
        remove) remove_original "$3" ;;
        *) rv_fail "caches: unknown action $1" ;;
    esac
}

ours() {
    [ -L "$path" ] && [ "$(readlink "$path")" = "$target" ]
}

link() {
    ours && return 0
    if [ -e "$path" ] || [ -L "$path" ]; then
        rv_fail "something appeared at $path since the look; run converge again" || return 1
    fi
    mkdir -p "$target" "${path%/*}" && ln -s "$target" "$path"
}

repoint() {
    ours && return 0
    if ! [ -L "$path" ] || [ "$(readlink "$path")" != "$1" ]; then
        rv_fail "$path changed since the look; run converge again" || return 1
    fi
    mkdir -p "$target" && rm "$path" && ln -s "$target" "$path"
}

migrate() {
    ours && return 0
    if [ -L "$path" ] || ! [ -d "$path" ]; then
        link
        return
    fi
    if [ "$path" -ef "$target" ]; then
        rv_fail "$path and $target are the same directory" || return 1
    fi
    mkdir -p "$target" || return 1
    copy "$path" && verify "$path" || return 1
    original=$path.rvstate-original-$(date +%Y%m%d%H%M%S)-$$
    remember || return 1
    mv "$path" "$original" || return 1
    # what was written between the copy and the rename
    copy "$original" && verify "$original" || return 1
    link || return 1
    if [ "$remove" = yes ]; then
        remove_original "$record"
    else
        printf 'original %s' "$original"
    fi
}

copy() {
    mkdir -p "$target.rvstate-tmp" || return 1
    rsync -aHuO --backup --backup-dir="$target.rvstate-replaced" \
        --temp-dir="$target.rvstate-tmp" -- "$1/" "$target/" ||
        rv_fail "copying $1 to $target did not succeed; nothing was removed" || return 1
    rm -rf "$target.rvstate-tmp"
    private_files
}

# Hugging Face keeps its credentials inside its cache.
private_files() {
    for secret in "$target/token" "$target/stored_tokens"; do
        if [ -f "$secret" ]; then
            chmod 600 "$secret" || return 1
        fi
    done
}

# Every entry of $1 is in the target: same names, kinds, links; same size and date, or newer there.
verify() {
    missing=$(rsync -rlHtuOn --out-format=%i -- "$1/" "$target/" | grep -vc '^\.d')
    if [ "$missing" != 0 ] || [ "$(entries "$1")" -gt "$(entries "$target")" ]; then
        rv_fail "$target does not hold all of $1 ($missing differ); nothing was removed"
    fi
}

entries() {
    find "$1" -print0 | tr -dc '\0' | wc -c
}

# Written before the rename: a record without its original means nothing, the reverse would hide it.
remember() {
    record=$records/$(basename "$original" | tr -dc 'A-Za-z0-9._-')
    kib=$(du -sk "$path" | cut -f 1)
    printf 'original %s\ntarget %s\nbytes %s\nentries %s\nmade %s\nstate aside\n' \
        "$original" "$target" "$((kib * 1024))" "$(($(entries "$path") - 1))" "$(date +%s)" |
        rv_store "$record" 600
}

# $1 is the record.  Only what the target provably holds is removed; what differs is moved there.
remove_original() {
    record=$1
    original=$(sed -n 's/^original //p' "$record") || return 1
    target=$(sed -n 's/^target //p' "$record")
    case $original in
        *.rvstate-original-*) ;;
        *) rv_fail "$record names no original of ours" || return 1 ;;
    esac
    if [ -d "$original" ] && ! [ -L "$original" ]; then
        copy "$original" && verify "$original" || return 1
        # contents that differ from the target's newer ones survive beside it
        rsync -aHcm --compare-dest="$target" -- "$original/" "$target.rvstate-replaced/" || return 1
        find "$target.rvstate-replaced" -depth -type d -empty -exec rmdir {} \; 2>/dev/null
        rm -rf "$original" || return 1
    fi
    rm -f "$record"
}
