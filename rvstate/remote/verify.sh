#!/bin/sh
# Compare what rvstate keeps on scratch with its manifests: full walks, one after another.
#   main SCRATCH_TEMPLATE HOME ENV_DIGEST LIBRARY
# ENV_DIGEST: the SHA-256 that the file of variables should have.  LIBRARY: the name of the scripts
# that converge keeps; of others only those are damage that a run needs which has not ended.  Changes nothing but the date of
# the last verification in each environment (.rvstate/verified: EPOCH sound|damaged|unknown) and the
# copy beside a sound one of what it was built from.
# Says, one a line, a line break in a name as octal 1: `total N`, and for each thing
#   at KIND PATH      environment, snapshot, variables, scripts
#   missing|changed|added|unreadable PATH    at most five of each
#   count MISSING CHANGED ADDED UNREADABLE
#   why REASON        torn, stamp, interpreter, link, digest, mode, busy, gone, unkept, begun,
#       absent, former, needed
#   is sound|damaged|unknown
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    # a program that streams says its group first, so that Ctrl-C can end it
    rv_section "group $(ps -o pgid= -p $$ | tr -d ' ')"
    rv_account "$1" "$2"
    rv_real "/{scratch}/.rv"
    rv=$rv_path
    rv_real "/{scratch}/rv-workspaces"
    spaces=$rv_path
    rv_identity
    printf 'total %s\n' "$(($(every | tr -dc '\0' | wc -c)))"
    for link in "$rv"/envs/*/*; do
        if [ -L "$link" ] && ! [ -e "$link" ]; then
            at environment "$link"
            verdict damaged link
        fi
    done
    for place in "$rv"/envs/*/.generations/*/*; do
        if [ -d "$place" ] && ! [ -L "$place" ]; then environment; fi
    done
    for place in "$spaces"/*/*/snapshots/*-????????-??????-????????; do
        if [ -d "$place" ]; then snapshot; fi
    done
    # converge makes the file with its directory, variables or none
    if [ -d "$rv/env" ]; then variables "$3"; fi
    library=$4
    for place in "$rv"/lib/*; do
        if [ -d "$place" ]; then scripts; fi
    done
    printf '@@rvstate %s status 0\n' "$rv_nonce"
}

# All that is walked, so that progress can be told.
every() {
    for place in "$rv"/envs/*/.generations/*/* "$rv"/env/user.env "$rv"/lib/* \
        "$spaces"/*/*/snapshots/*-????????-??????-????????; do
        if [ -e "$place" ]; then printf '\0'; fi
    done
}

at() {
    printf 'at %s %s\n' "$1" "$(printf '%s' "$2" | tr '\n' '\001')"
}

verdict() {
    printf 'why %s\nis %s\n' "${2-}" "$1"
}

# compared TREE MANIFEST: what the comparison said, shortened; sets counts, and torn.
compared() {
    said=$(rv_compare "$1" "$2" | awk '
        $1 == "torn" { torn = 1; next }
        ++n[$1] <= 5 { print }
        END {
            print "count " n["missing"] + 0, n["changed"] + 0, n["added"] + 0, n["unreadable"] + 0
            if (torn) print "torn"
        }')
    torn=no
    case $said in
        *"$rv_newline"torn)
            torn=yes
            said=${said%"$rv_newline"torn}
            ;;
    esac
    printf '%s\n' "$said"
    # shellcheck disable=SC2086 # four numbers
    set -- ${said##*"$rv_newline"}
    missing=$2
    changed=$3
    closed=$5
}

environment() {
    # a build that was killed, or is under way, has no stamp and nothing points to it
    if ! [ -s "$place/.rvstate-environment" ] && ! pointed; then return 0; fi
    at environment "$place"
    if ! [ -s "$place/.rvstate/manifest" ]; then
        # made before manifests were kept, or purged with it
        missing=0 changed=0 closed=0 torn=no
        kept=no
        if [ -d "$place/.rvstate" ]; then torn=yes; fi
    else
        kept=yes
        compared "$place" "$place/.rvstate/manifest"
    fi
    if ! [ -d "$place" ]; then
        verdict unknown gone
        return
    fi
    if being_built; then
        verdict unknown busy
        return
    fi
    if ! [ -s "$place/.rvstate-environment" ]; then
        judged damaged stamp
    elif ! "$place/bin/python" -c '' >/dev/null 2>&1 </dev/null; then
        judged damaged interpreter
    elif [ "$torn" = yes ]; then
        judged damaged torn
    elif [ "$((missing + changed))" -gt 0 ]; then
        judged damaged ''
    elif [ "$closed" -gt 0 ]; then
        judged unknown ''
    elif [ "$kept" = no ]; then
        judged unknown unkept
    else
        judged sound ''
        compare_beside
    fi
}

# The copy of what it was built from (build_environment.sh) is read with what it is a copy of, and made
# anew where it differs: both are used here, for a purge goes by what nobody uses.
compare_beside() {
    beside=${place%/*}/.${place##*/}.kept
    if [ -s "$place/.rvstate/recipe" ] && ! tar -C "$place/.rvstate" -df "$beside" >/dev/null 2>&1; then
        rv_keep_beside "$place" "$place" 2>/dev/null || printf 'unstamped\n'
    fi
}

# Say it, and remember when: the look at the account reads the date (probe.sh).
judged() {
    verdict "$1" "$2"
    if [ -d "$place/.rvstate" ] || mkdir "$place/.rvstate" 2>/dev/null; then
        printf '%s %s\n' "$(date +%s)" "$1" | rv_store "$place/.rvstate/verified" 644 2>/dev/null ||
            printf 'unstamped\n'
    fi
}

# Whether a link of a branch leads to $place.
pointed() {
    branch=${place%/*}
    link=${branch%/.generations/*}/${branch##*/}
    [ "$(readlink "$link" 2>/dev/null)" = "$place" ]
}

# Whether somebody alive holds the lock of the branch's builds.
being_built() {
    owner=$(readlink "${place%/*}/lock" 2>/dev/null)
    [ -n "$owner" ] && ! rv_abandoned "${place%/*}/lock" "$owner"
}

snapshot() {
    at snapshot "$place"
    manifest=${place%/*}/.${place##*/}.manifest
    if ! [ -e "$manifest" ]; then
        verdict unknown unkept
        return
    fi
    compared "$place" "$manifest"
    name=${place##*/}
    stem=${name%-????????-??????-????????}
    begun=
    # what the job did to its own copy is the job's business
    if [ -e "$rv/runs/${name#"$stem"-}/claim" ]; then begun=begun; fi
    if ! [ -d "$place" ]; then
        verdict unknown gone
    elif [ "$torn" = yes ]; then
        verdict unknown torn
    elif [ "$missing" -gt 0 ] || { [ "$changed" -gt 0 ] && [ -z "$begun" ]; }; then
        verdict damaged "$begun"
    elif [ "$closed" -gt 0 ]; then
        verdict unknown ''
    else
        verdict sound "$begun"
    fi
}

variables() {
    at variables "$rv/env/user.env"
    if ! [ -e "$rv/env/user.env" ]; then
        verdict damaged absent
    elif [ "$(rv_digest "$rv/env/user.env")" = "$1" ]; then
        verdict sound
    else
        verdict damaged digest
    fi
}

# A set of scripts is named by the digest over its files, so it tells by itself whether it is whole.
scripts() {
    at scripts "$place"
    found=$(for file in "$place"/*; do
        printf '%s\0' "${file##*/}"
        cat "$file" 2>/dev/null
        printf '\0'
    done | if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi)
    case $found in
        "${place##*/}"*) verdict sound ;;
        *)
            if [ "${place##*/}" = "$library" ]; then
                verdict damaged digest
            elif needed; then
                verdict damaged needed
            else
                verdict unknown former
            fi
            ;;
    esac
}

# Whether a run that has not ended was submitted with the scripts in $place.
needed() {
    for run in "$rv"/runs/*; do
        if [ -e "$run/job" ] && ! [ -e "$run/exit" ] &&
            grep -q -s -F -e "/lib/${place##*/}/" "$run/job.sh"; then return 0; fi
    done
    return 1
}
