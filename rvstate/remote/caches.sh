#!/bin/sh
# Cache links, and the migration of what lies where a link should be.
#   main LOCK SECONDS RECORDS REMOVE (ACTION PATH TARGET FORMER)...
# RECORDS: the directory that remembers originals.  REMOVE: yes removes originals once verified again.
# ACTION: create; update (a link of ours led to FORMER); migrate (a real directory, or a move that
# was interrupted); share (as migrate, and TARGET belongs to a group); remove (PATH is an original,
# TARGET its record).  Says "done N [NOTE]" or "failed N REASON" for each.
#
# Killed anywhere, nothing is lost and the next run finishes: what lies at PATH is copied and
# verified, a record is written, PATH is renamed aside, the link made, and what was written during
# the copy follows; only then the record says so.  Of two files with one name the newer (by
# modification time, in whole seconds) takes the place and the other survives, in
# TARGET.rvstate-replaced or in the original.  What a group has already is left as it is.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_lock "$1" "$2" || return 1
    records=$3
    remove=$4
    shift 4
    (umask 077 && mkdir -p "$records") || return 1
    forget
    number=0
    failed=0
    while [ $# -ge 4 ]; do
        reason=$(act "$1" "$2" "$3" "$4" 2>&1)
        status=$?
        rv_told "$number" "$status" "$reason"
        if [ "$status" != 0 ]; then failed=1; fi
        number=$((number + 1))
        shift 4
    done
    return "$failed"
}

# Records whose original is gone: a run was killed before its rename, or after the last removal.
forget() {
    for record in "$records"/*; do
        if [ -f "$record" ] && recall && [ -d "${original%/*}" ] && ! [ -d "$original" ]; then
            rm -f "$record"
        fi
    done
}

act() {
    path=$2
    target=$3
    sharing=no
    round=0
    case $1 in
        create) link ;;
        update) repoint "$4" ;;
        migrate) migrate ;;
        share) sharing=yes && migrate ;;
        remove)
            record=$3
            # a move that was finished just now may have taken its original away already
            if [ -e "$record" ] || [ -e "$path" ]; then remove_original; fi
            ;;
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
    if [ -d "$path" ] && ! [ -L "$path" ]; then
        set_aside || return 1
    fi
    link && finish
}

# Copy what is at $path, verify it, and make a link of the path; the original stays beside it.
set_aside() {
    apart || return 1
    copy "$path" && verify "$path" || return 1
    original=$path.rvstate-original-$(date +%Y%m%d%H%M%S)-$$
    measure "$path"
    record=$records/$(printf '%s' "${original##*/}" | tr -dc 'A-Za-z0-9._-')
    # before the rename: a record without its original means nothing, the reverse would hide it
    remember moving || return 1
    if [ -e "$original" ] || ! mv "$path" "$original"; then
        rm -f "$record"
        rv_fail "$path could not be renamed to $original; nothing was removed" || return 1
    fi
    said=$(link 2>&1) && return 0
    if [ "$remove" = yes ]; then
        # a home so full that no link fits: what is in the target for certain makes room for it
        remove_original && link
        return
    fi
    if ! [ -e "$path" ] && ! [ -L "$path" ] && mv "$original" "$path"; then rm -f "$record"; fi
    rv_fail "$path could not become a link (${said##*: }) and is as it was; its copy is in $target.\
 If its file system is full: converge --remove-originals removes what was copied and verified"
}

# Neither lies inside the other, by whatever names.
apart() {
    mkdir -p "$target" || return 1
    here=$(cd -P -- "$path" && pwd -P) && there=$(cd -P -- "$target" && pwd -P) ||
        rv_fail "$path or $target may not be entered" || return 1
    case $there/ in
        "$here"/*) rv_fail "$target lies in $path itself" || return 1 ;;
    esac
    case $here/ in
        "$there"/*) rv_fail "$path lies in $target itself" || return 1 ;;
    esac
}

# Bring over what was written to an original between its copy and its rename.
finish() {
    for record in "$records"/*; do
        if ! [ -f "$record" ] || ! recall || [ "$state" != moving ]; then continue; fi
        if [ "${original%.rvstate-original-*}" != "$path" ]; then continue; fi
        copy "$original" && verify "$original" && remember aside || return 1
        if [ "$remove" = yes ]; then
            remove_original || return 1
        else
            gave_way=
            if [ -d "$replaced" ]; then gave_way="; files that gave way to newer ones: $replaced"; fi
            printf 'the original is kept: %s%s\n' "$original" "$gave_way"
        fi
    done
}

# copy DIRECTORY: bring all of it to the target.
copy() {
    private_files "$1" || return 1
    round=$((round + 1))
    stamp=$(date +%Y%m%d%H%M%S)-$$-$round
    replaced=$target.rvstate-replaced
    # on our own side: the group's directory is not the place for it
    if [ "$sharing" = yes ]; then replaced=$path.rvstate-replaced; fi
    mkdir -p "$target" || return 1
    if [ "$sharing" = yes ]; then
        transfer group "$1" "$target"
        return
    fi
    before=$(mode_of "$target")
    shared_parts "$1"
    # parts that a group shares are links in the target: they keep their place
    case $parts in
        *hub*datasets*) transfer own "$1" "$target" --exclude=/hub --exclude=/datasets ;;
        *hub*) transfer own "$1" "$target" --exclude=/hub ;;
        *datasets*) transfer own "$1" "$target" --exclude=/datasets ;;
        *) transfer own "$1" "$target" ;;
    esac || return 1
    # the copy has the original's mode; what was private in either place stays so
    chmod "$(printf '%o' "$((0$before & 0$(mode_of "$target")))")" "$target" || return 1
    for part in $parts; do
        transfer group "$1/$part" "$target/$part" || return 1
    done
    private_files "$target"
}

# shared_parts DIRECTORY: set parts to those of its names that are links to a group's directory.
shared_parts() {
    parts=
    for part in hub datasets; do
        if [ -d "$1/$part" ] && ! [ -L "$1/$part" ] && [ -L "$target/$part" ] &&
            [ -d "$target/$part" ]; then
            parts="$parts $part"
        fi
    done
}

# transfer own|group FROM TO OPTION...
transfer() {
    whose=$1
    from=$2
    to=$3
    shift 3
    temp=$to.rvstate-tmp-$(id -u)
    mkdir -p "$temp" || return 1
    if [ "$whose" = group ]; then
        # theirs stays; what we add can be used and extended by the group
        said=$(rsync -rlptHOS --ignore-existing --chmod=ug+rwX,Dg+s \
            --temp-dir="$temp" "$@" -- "$from/" "$to/" 2>&1)
    else
        said=$(rsync -aHuOS --backup --backup-dir="$replaced/$stamp" \
            --temp-dir="$temp" "$@" -- "$from/" "$to/" 2>&1)
    fi
    code=$?
    rm -rf "$temp"
    case $code in
        # 24: a file vanished while we read; the comparison decides
        0 | 24) ;;
        *)
            said=${said%%"$rv_newline"*}
            rv_fail "copying $from to $to did not succeed (${said#rsync: }); nothing was removed"
            ;;
    esac
}

# Hugging Face keeps its credentials inside its cache.
private_files() {
    for secret in "$1/token" "$1/stored_tokens"; do
        if [ -f "$secret" ] && ! [ -L "$secret" ]; then
            chmod 600 "$secret" || return 1
        fi
    done
}

# verify DIRECTORY: every entry of it is in the target: by our own walk all names, by rsync's kinds,
# links, sizes and dates (or newer there; in a group's directory: or there before).
verify() {
    # shellcheck disable=SC2016 # for the inner shell
    lost=$(cd -- "$1" && find . -print0 | xargs -0 sh -c '
        to=$0
        for name; do [ -e "$to/$name" ] || [ -L "$to/$name" ] || printf "%s\n" "$name"; done
        ' "$target" 2>&1) || lost="(it could not be compared) $lost"
    if [ -z "$lost" ]; then
        shared_parts "$1"
        if [ "$sharing" = yes ]; then
            lost=$(differing --ignore-existing "$1" "$target")
        else
            lost=$(differing --update "$1" "$target")
        fi || lost="(it could not be compared) $lost"
    fi
    if [ -n "$lost" ]; then
        rv_fail "$target does not hold all of $1 (${lost%%"$rv_newline"*}); nothing was removed"
    fi
}

differing() {
    options=
    for part in $parts; do options="$options --exclude=/$part"; done
    # shellcheck disable=SC2086 # words of our own
    listed=$(rsync -rlHtDOnS "$1" $options --out-format='%i %n' -- "$2/" "$3/" 2>&1) || {
        printf '%s' "$listed"
        return 1
    }
    # directories differ in date only, which nobody keeps
    printf '%s' "$listed" | sed '/^\.d/d'
}

# measure DIRECTORY: set bytes and entries.
measure() {
    bytes=$(($(du -sk "$1" | cut -f 1) * 1024))
    entries=$(($(find "$1" -print0 | tr -dc '\0' | wc -c) - 1))
    made=$(date +%s)
}

mode_of() {
    stat -c %a "$1" 2>/dev/null || stat -f %Lp "$1"
}

remember() {
    printf 'original %s\ntarget %s\nbytes %s\nentries %s\nmade %s\nsharing %s\nstate %s\n' \
        "$original" "$target" "$bytes" "$entries" "$made" "$sharing" "$1" | rv_store "$record" 600
}

# Read $record; the target is not taken from it, for it may be another one by now.
recall() {
    original='' kept_target='' state=''
    while IFS= read -r line; do
        value=${line#* }
        case $line in
            'original '*) original=$value ;;
            'target '*) kept_target=$value ;;
            'bytes '*) bytes=$value ;;
            'entries '*) entries=$value ;;
            'made '*) made=$value ;;
            'sharing '*) sharing=$value ;;
            'state '*) state=$value ;;
        esac
    done <"$record"
    case $original in
        /*.rvstate-original-*) [ -n "$kept_target" ] ;;
        *) false ;;
    esac
}

# Only what the target provably holds is removed; contents that differ from it are moved beside it.
remove_original() {
    recall || rv_fail "$record names no original of ours" || return 1
    path=${original%.rvstate-original-*}
    target=$kept_target
    if [ -d "$original" ] && ! [ -L "$original" ]; then
        copy "$original" && verify "$original" && keep_different || return 1
        # directories that were made read-only would keep their contents
        find "$original" -type d ! -perm -700 -exec chmod u+rwx {} + || return 1
        rm -rf "$original" || rv_fail "$original could not be removed completely" || return 1
    fi
    rm -f "$record" || return 1
    if [ -d "$replaced" ]; then printf 'files that gave way to newer ones: %s\n' "$replaced"; fi
}

keep_different() {
    aside=$replaced/$stamp-different
    (umask 077 && mkdir -p "$aside") || return 1
    said=$(umask 077 && rsync -rlHcmS --compare-dest="$target" -- "$original/" "$aside/" 2>&1) || {
        said=${said%%"$rv_newline"*}
        rv_fail "$original could not be compared with $target (${said#rsync: }); it was not removed"
        return
    }
    # the directories come along; what is empty afterwards tells nothing
    find "$aside" -type d -exec chmod u+rwx {} +
    find "$aside" -depth -type d -exec rmdir {} \; 2>/dev/null
    rmdir "$replaced" 2>/dev/null || return 0
}
