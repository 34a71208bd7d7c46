#!/bin/sh
# Build one generation of a project's environment aside, check it, and switch the link to it.
#   main LOCK SECONDS LINK GENERATION DIGEST UV CACHE MODULE PYTHON CODE STATE (SOURCE)...
# SOURCE: a requirements file or pyproject.toml below CODE, whose manifest must say STATE before and
# after: else `stale`, and nothing is built.  PYTHON: a version or path; empty for
# the one that MODULE brings.  CACHE: uv's cache, on the file system of the environments, so that
# files are links and not copies.  The stamp is written last, so a build that was killed is invisible.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    mkdir -p "${1%/*}" && rv_lock "$1" "$2" || return 1
    link=$3
    generation=$4
    digest=$5
    uv=$6
    UV_CACHE_DIR=$7
    export UV_CACHE_DIR
    module=$8
    python=$9
    shift 9
    code=$1
    state=$2
    shift 2
    if [ "$(head -n 1 "$generation/.rvstate-environment" 2>/dev/null)" != "$digest" ]; then
        if ! current; then
            printf 'stale\n'
            return 0
        fi
        build "$@" || return 1
        if ! current; then
            rm -rf "$generation"
            printf 'stale\n'
            return 0
        fi
        # what it is checked against later (verify.sh); files from a cache may be years old
        rv_renew "$generation" && mkdir -p "$generation/.rvstate" &&
            rv_manifest "$generation" "$generation/.rvstate/manifest" || return 1
        {
            printf '%s\n' "$digest"
            "$generation/bin/python" --version
        } | rv_store "$generation/.rvstate-environment" 644 || return 1
    fi
    switch && printf 'built %s\n' "$generation"
}

build() {
    rm -rf "$generation" && mkdir -p "${generation%/*}" "${link%/*}" || return 1
    interpreter=$(find_python) || return 1
    "$uv" venv --quiet --seed --python "$interpreter" "$generation" >&2 ||
        rv_fail "uv could not make an environment with $interpreter" || return 1
    if [ $# -gt 0 ]; then
        (
            cd -- "$code" || exit 1
            for source in "$@"; do
                set -- "$@" --requirement "$source"
                shift
            done
            # gentle: a login node is shared
            UV_CONCURRENT_INSTALLS=4 UV_CONCURRENT_BUILDS=2 nice "$uv" pip install \
                --python "$generation/bin/python" "$@" >&2
        ) || rv_fail "the requirements could not be installed" || return 1
        "$uv" pip check --quiet --python "$generation/bin/python" >&2 ||
            rv_fail "the installed packages contradict each other" || return 1
    fi
    "$generation/bin/python" -c 'import sys' || rv_fail "its Python does not run" || return 1
}

# Whether the code is still that of the run, and not what another one brought meanwhile.
current() {
    [ "$(cat "${code%/*}/manifest" 2>/dev/null)" = "$state" ]
}

find_python() {
    case $python in
        '') ;;
        *) printf '%s' "$python" && return 0 ;;
    esac
    # a login shell, for `module` is a function that the site's profile defines
    # shellcheck disable=SC2016 # expanded there
    if [ -n "$module" ]; then
        found=$(bash -lc 'module load "$1" >/dev/null 2>&1 || exit 1; command -v python3' _ \
            "$module" | tail -n 1)
        [ -x "$found" ] || rv_fail "module load $module brings no python3" || return 1
    else
        found=$(command -v python3) || rv_fail "there is no python3 on the login node" || return 1
    fi
    printf '%s' "$found"
}

# One rename: a job that starts meanwhile sees the old generation or the new one.
switch() {
    [ "$(readlink "$link" 2>/dev/null)" = "$generation" ] && return 0
    if [ -e "$link" ] && ! [ -L "$link" ]; then
        rv_fail "$link is not a link of ours; move it away" || return 1
    fi
    rm -f "$link.new" && ln -s "$generation" "$link.new" || return 1
    mv -fT "$link.new" "$link" 2>/dev/null || { rm -f "$link" && mv -f "$link.new" "$link"; }
}
