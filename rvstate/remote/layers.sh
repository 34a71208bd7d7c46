#!/bin/sh
# Build layers over an environment (layer.sh), those that are not there yet.
#   main LOCK SECONDS BASE UV CACHE TOKEN NAME...
# LOCK: of the branch's builds.  BASE: the generation; layers lie beside it as layer-KEY, the NAMEs.
# TOKEN: `build_environment cancel LOCK TOKEN` ends it, and its half is removed.  The payload is a tar
# archive: check.py, and for each layer NAME/recipe.
# Says, for each layer, `at NAME` and `built PATH` or `there PATH`; before it `note TEXT`, `deferred NAME`,
# `size FILES BYTES NEW-BYTES`, and for one that may not be `refused TEXT`.  Progress comes on standard
# error.  build_environment.sh and layer.sh travel in front.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front
# shellcheck disable=SC2034 # what building is told

main() {
    lock=$1
    base=$3
    uv=$4
    cache=$5
    token=$6
    backup=
    patience=$2
    shift 6
    branch=${base%/*}
    inputs=$branch/.inputs-layers
    # so that it can be ended while it waits, too
    mkdir -p "$branch" && printf '%s\n' "$(ps -o pgid= -p $$ | tr -d ' ')" >"$lock.by-$token" || return 1
    if [ -L "$lock" ]; then printf 'waiting for another build of this environment\n' >&2; fi
    rv_lock "$lock" "$patience" || { rm -f "$lock.by-$token"; return 1; }
    trap 'abandon' EXIT
    rm -rf "$inputs" && mkdir "$inputs" && base64 -d | (cd "$inputs" && tar -xzmof -) ||
        rv_fail "the recipes did not arrive whole" || return 1
    adopt_all
    number=0
    for name; do
        number=$((number + 1))
        at=$branch/$name
        if sound "$at"; then
            printf 'there %s\n' "$at"
            continue
        fi
        generation=$branch/.healing/$name
        # in the versions of before, and with what was added by hand
        rm -f "$inputs"/*-former "$inputs/added"
        remember "$at"
        damaged=$at
        if [ -d "$at/.rvstate" ]; then find_extra >"$inputs/added"; fi
        printf 'at %s\n' "$name"
        printf 'layer %s of %s\n' "$number" "$#" >&2
        build_layer "$inputs/$name/recipe" "$inputs/check.py" || return 1
        # from here on whoever finds it puts it in place
        half=
        exchange "$at" || return 1
        printf 'size %s\nbuilt %s\n' "$(cat "$at/.rvstate/size")" "$at"
    done
}
