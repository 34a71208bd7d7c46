#!/bin/sh
# The state of every branch's environment, as far as a look can tell without a walk.
# Travels between lib.sh and the scripts that say it (rvstate/script.py).
# shellcheck shell=sh

# rv_environments DIRECTORY: for each link DIRECTORY/PROJECT/BRANCH, and each layer beside what it
# leads to (layer.sh; without a stamp nobody takes it for one), its path and
# `DIGEST runs|dead WHEN VERDICT RECIPE`, both ended by NUL; - for what is unknown.  RECIPE: whether it,
# or the copy beside it, has what it was built from.  One that is sound costs no process.
rv_environments() {
    for link in "$1"/*/* "$1"/*/.generations/*/layer-*; do
        case $link in
            "$1"/*/.generations/*) [ -s "$link/.rvstate-environment" ] || continue ;;
            *) [ -L "$link" ] || continue ;;
        esac
        digest=- runs=dead when=- verdict=- recipe=-
        # a single test for what is there saves a message for what is not
        if [ -s "$link/.rvstate-environment" ]; then
            read -r digest _ <"$link/.rvstate-environment"
        fi
        if [ -x "$link/bin/python" ]; then runs=runs; fi
        if [ -s "$link/.rvstate/verified" ]; then
            read -r when verdict _ <"$link/.rvstate/verified"
        fi
        if [ -s "$link/.rvstate/recipe" ]; then recipe=recipe; fi
        if [ "$digest $runs $recipe" != "${digest#-} runs recipe" ]; then
            target=$link
            if [ -L "$link" ]; then target=$(readlink "$link"); fi
            # not one of ours after all?
            case $target in
                "${link%/*}"/.generations/* | "$1"/*/.generations/*/layer-*) ;;
                *) continue ;;
            esac
            if [ -s "${target%/*}/.${target##*/}.kept" ]; then recipe=recipe; fi
        fi
        printf '%s\0%s\0' "$link" "${digest:--} $runs ${when:--} ${verdict:--} $recipe"
    done
}
