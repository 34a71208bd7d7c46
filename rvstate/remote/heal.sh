#!/bin/sh
# Mend environments that lost files.
#   main PATIENCE TOOLS CACHE LINK...
# LINK: a branch's link to its environment, found damaged by the look.  TOOLS: where rvstate keeps
# programs.  CACHE: uv's.  Each is looked at once more under the lock of its branch's builds.
# One that keeps what it was built from is built again aside (build_environment.sh travels in front),
# what was added by hand is put back, and the whole takes its place.  Any other loses link and stamp,
# so that the next run of its project builds it anew.
# Says "done N [NOTE]" or "failed N REASON" for each.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    patience=$1
    tools=$2
    cache=$3
    shift 3
    number=0
    failed=0
    for link in "$@"; do
        # a shell of its own gives the lock back at its end; what builds say is for people
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
    damaged=$(readlink "$link")
    case $damaged in
        "${link%/*}"/.generations/*/*) ;;
        *) rv_fail "$link leads to $damaged, which rvstate did not make" || return 1 ;;
    esac
    branch=${damaged%/*}
    fresh=$branch/.healing/${damaged##*/}
    if [ -d "$branch" ]; then
        (rv_lock "$branch/lock" "$patience") || return 1
    fi
    # somebody may have built it anew meanwhile
    if sound "$damaged"; then return 0; fi
    if ! sound "$fresh" && [ -s "$damaged/.rvstate/recipe" ] &&
        [ -s "$damaged/.rvstate/check.py" ] && [ -d "$damaged/.rvstate/sources" ]; then
        (rebuild) || return 1
    fi
    if [ -d "$branch" ]; then rv_lock "$branch/lock" "$patience" || return 1; fi
    if [ "$(readlink "$link" 2>/dev/null)" != "$damaged" ] || sound "$damaged"; then
        rm -rf "$branch/.healing"
    elif sound "$fresh"; then
        take_its_place
    else
        # the stamp first: without it nothing takes the generation for finished
        rm -f "$damaged/.rvstate-environment" && rm -f "$link" &&
            printf 'it does not keep what it was built from; the next run of its project builds it\n'
    fi
}

# sound GENERATION: whether nothing is known against it.
sound() {
    [ -s "$1/.rvstate-environment" ] && [ -x "$1/bin/python" ] || return 1
    state=
    if [ -s "$1/.rvstate/verified" ]; then read -r _ state <"$1/.rvstate/verified"; fi
    [ "$state" != damaged ]
}

# Build $fresh from what $damaged keeps; stamped when all of it is as it will be.
rebuild() {
    uv=$(PATH=$PATH:$HOME/.local/bin:$HOME/.cargo/bin:$tools/bin && command -v uv) ||
        rv_fail "there is no uv to build it with; run converge again" || return 1
    extra=$(added "$damaged" 2>/dev/null | sed -n 's/^added //p')
    rm -rf "$branch/.healing" && mkdir -p "$fresh" && cp -R -p "$damaged/.rvstate" "$fresh/" || return 1
    # what it was checked against is made anew
    rm -f "$fresh/.rvstate/manifest" "$fresh/.rvstate/verified" "$fresh/.rvstate/made"
    said=$(build_main "$branch/lock" "$patience" "$branch/.healing/link" "$fresh" "$uv" "$cache" - - heal 2>&1) ||
        rv_fail "it could not be built again: ${said##*"$rv_newline"}" || return 1
    rm -f "$fresh/.rvstate-environment" || return 1
    put_back
    relocate || return 1
    rv_renew "$fresh" && rv_manifest "$fresh" "$fresh/.rvstate/manifest" || return 1
    {
        printf '%s\n' "${damaged##*/}"
        "$fresh/bin/python" --version
    } | rv_store "$fresh/.rvstate-environment" 644
}

# What the user had added by hand.
put_back() {
    [ -n "$extra" ] || return 0
    # shellcheck disable=SC2086 # NAME==VERSION each
    UV_CACHE_DIR=$cache nice "$uv" pip install --quiet --python "$fresh/bin/python" $extra >/dev/null 2>&1 &&
        return 0
    for one in $extra; do
        UV_CACHE_DIR=$cache nice "$uv" pip install --quiet --python "$fresh/bin/python" "$one" >/dev/null 2>&1 ||
            lost="${lost:-} $one"
    done
    if [ -n "${lost:-}" ]; then
        printf '%s\n' "$lost" >"$fresh/.rvstate/lost"
    fi
}

# Programs name the interpreter by its path, which is another one in a moment.
relocate() {
    find "$fresh" -name __pycache__ -prune -exec rm -rf {} + || return 1
    here=$(printf '%s' "$fresh" | sed 's/[][\.*^$|]/\\&/g')
    there=$(printf '%s' "$damaged" | sed 's/[&|\]/\\&/g')
    grep -r -l -I -Z -F -e "$fresh" "$fresh" | xargs -0 -r sed -i -e "s|$here|$there|g"
}

take_its_place() {
    gone=$branch/.gone-${damaged##*/}
    rm -rf "$gone" || return 1
    if [ -e "$damaged" ]; then mv "$damaged" "$gone" || return 1; fi
    mv "$fresh" "$damaged" || return 1
    rm -rf "$gone" "$branch/.healing"
    if [ -s "$damaged/.rvstate/lost" ]; then
        printf 'it was built again, but what was added by hand could not be put back:%s\n' \
            "$(cat "$damaged/.rvstate/lost")"
        rm -f "$damaged/.rvstate/lost"
    else
        printf 'it was built again\n'
    fi
}
