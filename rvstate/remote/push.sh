#!/bin/sh
# Bring a workspace's code to the state of the laptop's tree; the tar archive comes as payload.
#   main LOCK SECONDS ROOT OLD NEW IDENTITY (DELETED)...
# OLD: the state that the archive is a difference to, or - for a whole tree.  NEW: the state
# afterwards, written last: a push that was killed leaves none, and the next one sends everything.
# Paths in DELETED are in the escapes of printf's %b.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    (umask 077 && mkdir -p "$3") || return 1
    rv_lock "$1" "$2" || return 1
    root=$3
    old=$4
    new=$5
    identity=$6
    shift 6
    if [ -f "$root/identity" ] && [ "$(cat "$root/identity")" != "$identity" ]; then
        rv_fail "another project of that name has its code in $root"
        return 1
    fi
    printf '%s\n' "$identity" >"$root/identity"
    if [ "$old" = - ]; then
        whole || return 1
    else
        if [ "$(cat "$root/manifest" 2>/dev/null)" != "$old" ]; then
            printf 'stale\n'
            return 0
        fi
        rm -f "$root/manifest"
        difference "$@" || return 1
    fi
    printf '%s\n' "$new" | rv_store "$root/manifest" 600 && printf 'pushed\n'
}

unpack() {
    # -m: files start young on a file system with a purge; -o: they are ours
    # text on the way, for connectors that know only text
    base64 -d | tar -xzmof - -C "$1"
}

whole() {
    rm -rf "$root/incoming" && mkdir -m 700 "$root/incoming" || return 1
    unpack "$root/incoming" || rv_fail "the files did not arrive whole" || return 1
    rm -f "$root/manifest"
    rm -rf "$root/outgoing"
    if [ -d "$root/code" ]; then mv "$root/code" "$root/outgoing" || return 1; fi
    mv "$root/incoming" "$root/code" && rm -rf "$root/outgoing"
}

difference() {
    for escaped in "$@"; do
        # the dot keeps a name's own line breaks at its end
        name=$(printf '%b.' "$escaped")
        name=${name%.}
        rm -f -- "$root/code/$name" || return 1
        case $name in
            */*) (cd -- "$root/code" && rmdir -p -- "${name%/*}" 2>/dev/null) ;;
        esac
    done
    unpack "$root/code" || rv_fail "the files did not arrive whole"
}
