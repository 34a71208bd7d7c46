#!/bin/sh
# Bring a workspace's code to the state of the laptop's tree.
#   main LOCK SECONDS ROOT OLD NEW IDENTITIES FORMERLY
# OLD: the state that the payload is a difference to, or - for a whole tree.  NEW: the state
# afterwards, written last: a push that was killed leaves none, and the next one sends everything.
# IDENTITIES: what the project is known by, one a line; FORMERLY: what it may have been known by.  One
# of them in common with ROOT/identity is enough, and IDENTITIES are added there.
# The payload is a tar archive with code/PATH for every file, and lists of paths (./PATH, each ended
# by NUL): files (all of the tree; left out where the set is as before), changed, deleted, emptied.
# Nothing counts before all of it arrived.  What was not sent from here is never removed and never
# written over, nor is a sent file that somebody changed over there since: where such a thing is in
# the way, or stands where a directory of the tree should be (a link would lead elsewhere), it is
# moved to a directory beside ROOT/code, and that is said once (aside PATH).
# shellcheck shell=sh
# shellcheck disable=SC2016 # what xargs runs is expanded there
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    (umask 077 && mkdir -p "$3") || return 1
    rv_lock "$1" "$2" || return 1
    root=$3
    old=$4
    aside=$root/aside-$(date +%Y%m%d-%H%M%S)-$$
    if [ -s "$root/identity" ] && ! printf '%s\n' "$6" "$7" | grep -q -x -F -f "$root/identity"; then
        rv_fail "another project of that name has its code in $root"
        return 1
    fi
    if [ "$old" != - ] && ! { [ "$(cat "$root/manifest" 2>/dev/null)" = "$old" ] && [ -f "$root/files" ]; }; then
        printf 'stale\n'
        return 0
    fi
    { cat "$root/identity" 2>/dev/null; printf '%s\n' "$6"; } | sort -u | rv_store "$root/identity" 600 ||
        return 1
    arrive || rv_fail "the files did not arrive whole; nothing was changed" || return 1
    if [ "$old" != - ] && meddled; then
        rm -rf "$new"
        say_aside
        printf 'stale\n'
        return 0
    fi
    # its date goes on telling what was changed over there since
    if [ -f "$root/manifest" ]; then mv -f "$root/manifest" "$root/manifest.old" || return 1; fi
    if [ "$old" = - ]; then whole; else difference; fi || return 1
    if [ -f "$new/files" ]; then mv -f "$new/files" "$root/files" || return 1; fi
    rm -rf "$new" "$root/manifest.old"
    say_aside
    printf '%s\n' "$5" | rv_store "$root/manifest" 600 && printf 'pushed\n'
}

say_aside() {
    if [ -d "$aside" ]; then printf 'aside %s\n' "$aside"; fi
}

arrive() {
    settle || return 1
    new=$root/incoming
    rm -rf "$new" && mkdir -m 700 "$new" || return 1
    # text on the way, for connectors that know only text; -m: files start young on a file system
    # with a purge; -o: they are ours
    base64 -d | tar -xzmof - -C "$new"
}

whole() {
    # what the large snapshots are made from belongs to the former tree
    rm -f "$root/pristine.state" "$root/since"
    [ -d "$new/code" ] || mkdir "$new/code" || return 1
    if [ -d "$root/code" ]; then mv "$root/code" "$root/outgoing" || return 1; fi
    settle || return 1
    # before the files themselves: were this killed in between, they would pass for somebody's own
    rm -f "$root/manifest.old"
    if [ -f "$new/files" ]; then cp "$new/files" "$new/list" && mv -f "$new/list" "$root/files" || return 1; fi
    mv "$new/code" "$root/code"
}

# What is left of the former tree: its own files go, any other is kept.
settle() {
    [ -d "$root/outgoing" ] || return 0
    if [ -f "$root/files" ]; then
        clear_way "$root/outgoing" "$root/files" || return 1
        # a path may be a directory by now: what cannot be removed is kept
        (cd "$root/outgoing" && xargs -0 rm -f -- <"$root/files" 2>/dev/null)
    fi
    find "$root/outgoing" -depth -type d -empty -exec rmdir {} \;
    [ -d "$root/outgoing" ] || return 0
    if [ -d "$aside" ]; then mv "$root/outgoing" "$aside/code"; else mv "$root/outgoing" "$aside"; fi
}

difference() {
    # first of all, so that no snapshot from the pristine tree misses a change
    for list in changed deleted emptied; do
        if [ -f "$new/$list" ]; then cat "$new/$list" >>"$root/since" || return 1; fi
    done
    remove && make_way || return 1
    # from here on these names are ours, whatever happens
    rm -f "$root/manifest.old" || return 1
    if [ -f "$new/files" ]; then
        cat "$root/files" "$new/files" >"$new/both" && mv -f "$new/both" "$root/files" || return 1
    fi
    [ -d "$new/code" ] || return 0
    # tar puts a new file in the place of the old one and never writes through a link
    (cd -- "$new/code" && tar -cf - .) | (cd -- "$root/code" && tar -xof -) ||
        rv_fail "files could not be put into $root/code" || return 1
}

# Whether somebody has changed a file of ours that this push would leave as it is: behind the push it
# would pass for sent.
meddled() {
    (cd "$root/code" && find . \( -type f -o -type l \) \( -newer ../manifest -o -cnewer ../manifest \) -print0) |
        lines >"$new/newer"
    [ -s "$new/newer" ] || return 1
    for list in changed deleted; do
        if [ -f "$new/$list" ]; then cat "$new/$list"; fi
    done | lines >"$new/touched"
    grep -a -v -x -F -f "$new/touched" "$new/newer" >"$new/left"
    [ -s "$new/left" ] && lines <"$root/files" | grep -a -q -x -F -f "$new/left"
}

# The files that are no longer in the tree, and directories that hold nothing any more.
remove() {
    clear_way "$root/code" "$new/deleted" || return 1
    (
        cd -- "$root/code" || exit 1
        xargs -0 rm -f -- <"$new/deleted" || exit 1
        # a directory with files that were not sent stays
        xargs -0 rmdir -- <"$new/emptied" 2>/dev/null || :
    ) || rv_fail "files could not be removed from $root/code"
}

# What is not ours goes aside before files take its place: names that were not in the tree so far.
make_way() {
    clear_way "$root/code" "$new/changed" || return 1
    (cd -- "$root/code" && xargs -0 sh -c 'for file; do
        if [ -e "$file" ] || [ -L "$file" ]; then printf "%s\0" "$file"; fi
    done' sh <"$new/changed") >"$new/there" || return 1
    lines <"$root/files" >"$new/known" || return 1
    lines <"$new/there" | grep -a -v -x -F -f "$new/known" | lines >"$new/foreign"
    set_aside "$root/code" "$new/foreign"
}

# NULs and line breaks change places, so that grep compares whole names.
lines() {
    tr '\n\000' '\000\n'
}

# clear_way TREE LIST: what stands in the way of the listed files goes aside: anything but a
# directory where one should be above them, so that nothing is removed or written through a link; a
# directory in the place of a file; a file that was changed since the last push.
clear_way() {
    (cd -- "$1" && xargs -0 sh -c '
    if [ -e ../manifest.old ]; then pushed=../manifest.old; else pushed=; fi
    last=
    for file; do
        above=${file%/*}
        if [ "$above" != "$last" ]; then
            last=$above
            free=yes
            rest=${above#.}/
            at=.
            while [ "$rest" != / ]; do
                rest=${rest#/}
                at=$at/${rest%%/*}
                rest=/${rest#*/}
                if [ -L "$at" ] || { [ -e "$at" ] && ! [ -d "$at" ]; }; then
                    printf "%s\0" "$at"
                    free=no
                    break
                fi
            done
        fi
        if [ "$free" = no ] || [ -L "$file" ]; then continue; fi
        if [ -d "$file" ] || { [ "$pushed" ] && [ "$file" -nt "$pushed" ]; }; then
            printf "%s\0" "$file"
        fi
    done' sh <"$2") >"$root/blocked" || return 1
    set_aside "$1" "$root/blocked" && rm -f "$root/blocked"
}

# set_aside TREE LIST: move these to the directory for what is not ours, under their own names.
set_aside() {
    [ -s "$2" ] || return 0
    (umask 077 && mkdir -p "$aside") || return 1
    (cd -- "$1" && xargs -0 sh -c 'to=$1; shift
    for file; do
        # the same thing may be listed twice
        if ! [ -e "$file" ] && ! [ -L "$file" ]; then continue; fi
        mkdir -p -- "$to/${file%/*}" && mv -- "$file" "$to/$file" || exit 1
    done' sh "$aside" <"$2") ||
        rv_fail "what was not sent from here could not be moved out of $1"
}
