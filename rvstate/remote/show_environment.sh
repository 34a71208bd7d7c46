#!/bin/sh
# What is in an environment.  Only reads.
#   main SCRATCH_TEMPLATE HOME LINK
# LINK may start with /{home} and /{scratch}.  Sections: place (the generation; empty where there is
# none), stamp, recipe, installed, now, size, deferred, and layer for each layer of its branch: path,
# FILES BYTES NEW-BYTES, and its recipe.  build_environment.sh travels in front.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    rv_real "$3"
    place=$(readlink "$rv_path" 2>/dev/null)
    rv_section place
    [ -f "$place/.rvstate-environment" ] || return 0
    printf '%s\n' "$place"
    rv_section stamp
    cat "$place/.rvstate-environment"
    for part in recipe installed size deferred; do
        rv_section "$part"
        [ ! -f "$place/.rvstate/$part" ] || cat "$place/.rvstate/$part"
    done
    rv_section now
    distributions "$place"
    for layer in "${place%/*}"/layer-*; do
        [ -s "$layer/.rvstate-environment" ] || continue
        rv_section layer
        printf '%s\n' "$layer"
        cat "$layer/.rvstate/size" "$layer/.rvstate/recipe"
    done
}
