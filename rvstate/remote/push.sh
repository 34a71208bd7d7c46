#!/bin/sh
# Bring a workspace's code to the state of the laptop's tree.
#   main LOCK SECONDS ROOT OLD NEW IDENTITY
# OLD: the state that the payload is a difference to, or - for a whole tree.  NEW: the state
# afterwards, written last: a push that was killed leaves none, and the next one sends everything.
# The payload is a tar archive with code/PATH for every file, and lists of paths (./PATH, each ended
# by NUL): files (all of the tree; left out where the set is as before), changed, deleted, emptied.
# Nothing counts before all of it arrived.  A file in ROOT/code that was not sent is never removed:
# where it is in the way it is set aside, and that is said (aside PATH).
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    (umask 077 && mkdir -p "$3") || return 1
    rv_lock "$1" "$2" || return 1
    root=$3
    old=$4
    if [ -s "$root/identity" ] && [ "$(cat "$root/identity")" != "$6" ]; then
        rv_fail "another project of that name has its code in $root"
        return 1
    fi
    if [ "$old" != - ] && [ "$(cat "$root/manifest" 2>/dev/null)" != "$old" ]; then
        printf 'stale\n'
        return 0
    fi
    printf '%s\n' "$6" | rv_store "$root/identity" 600 || return 1
    arrive || rv_fail "the files did not arrive whole; nothing was changed" || return 1
    rm -f "$root/manifest" || return 1
    if [ "$old" = - ]; then whole; else difference; fi || return 1
    if [ -f "$new/files" ]; then mv -f "$new/files" "$root/files" || return 1; fi
    rm -rf "$new"
    printf '%s\n' "$5" | rv_store "$root/manifest" 600 && printf 'pushed\n'
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
    mv "$new/code" "$root/code" && settle
}

# What is left of the former tree: its own files go, any other is kept.
settle() {
    [ -d "$root/outgoing" ] || return 0
    for list in "$root/files" "$root/incoming/files"; do
        # a path may be a directory by now: what cannot be removed is kept
        if [ -f "$list" ]; then (cd "$root/outgoing" && xargs -0 rm -f -- <"$list" 2>/dev/null); fi
    done
    find "$root/outgoing" -depth -type d -empty -exec rmdir {} \;
    [ -d "$root/outgoing" ] || return 0
    aside=$root/aside-$(date +%Y%m%d-%H%M%S)-$$
    mv "$root/outgoing" "$aside" && printf 'aside %s\n' "$aside"
}

difference() {
    # first of all, so that no snapshot from the pristine tree misses a change
    for list in changed deleted emptied; do
        if [ -f "$new/$list" ]; then cat "$new/$list" >>"$root/since" || return 1; fi
    done
    (
        cd -- "$root/code" || exit 1
        xargs -0 rm -f -- <"$new/deleted" || exit 1
        # a directory with files that were not sent stays
        xargs -0 rmdir -- <"$new/emptied" 2>/dev/null || :
    ) || rv_fail "files could not be removed from $root/code" || return 1
    [ -d "$new/code" ] || return 0
    # tar puts a new file in the place of the old one and never writes through a link
    (cd -- "$new/code" && tar -cf - .) | (cd -- "$root/code" && tar -xof -) ||
        rv_fail "files could not be put into $root/code" || return 1
}
