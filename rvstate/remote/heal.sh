#!/bin/sh
# Mend environments that lost files.
#   main PATIENCE LINK...       LINK: a branch's link to its environment, found damaged by the look
# What an environment was built from is gone with it: the link and the stamp go, so that the next run
# of its project builds it anew.  Each is looked at once more under the lock of its branch's builds.
# Says "done N [NOTE]" or "failed N REASON" for each.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    patience=$1
    shift
    number=0
    failed=0
    for link in "$@"; do
        # a shell of its own gives the lock back at its end
        reason=$(heal 2>&1)
        status=$?
        rv_told "$number" "$status" "$reason"
        if [ "$status" != 0 ]; then failed=1; fi
        number=$((number + 1))
    done
    return "$failed"
}

heal() {
    [ -L "$link" ] || return 0
    generation=$(readlink "$link")
    case $generation in
        "${link%/*}"/.generations/*/*) ;;
        *) rv_fail "$link leads to $generation, which rvstate did not make" || return 1 ;;
    esac
    if [ -d "${generation%/*}" ]; then rv_lock "${generation%/*}/lock" "$patience" || return 1; fi
    # somebody may have built it anew meanwhile
    [ "$(readlink "$link" 2>/dev/null)" = "$generation" ] || return 0
    sound && return 0
    # the stamp first: without it nothing takes the generation for finished
    rm -f "$generation/.rvstate-environment" && rm -f "$link"
}

sound() {
    [ -s "$generation/.rvstate-environment" ] && [ -x "$generation/bin/python" ] || return 1
    { read -r _ state <"$generation/.rvstate/verified"; } 2>/dev/null
    [ "${state:-}" != damaged ]
}
