#!/bin/sh
# Install uv below our own directory, with the pip of the site's Python.
#   main LOCK SECONDS TOOLS MODULE      MODULE brings a Python with pip; empty means: the one on PATH
# Says "done 0" or "failed 0 REASON".
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_lock "$1" "$2" || return 1
    tools=$3
    if "$tools/bin/uv" --version >/dev/null 2>&1; then
        rv_told 0 0 ''
        return
    fi
    reason=$(install_uv "$4" 2>&1)
    status=$?
    rv_told 0 "$status" "$reason"
    return "$status"
}

install_uv() {
    hint='set [modules] python to one with a newer pip, or install uv in ~/.local/bin'
    # a login shell, for `module` is a function that the site's profile defines
    # shellcheck disable=SC2016 # expanded there
    python=$(bash -lc '[ -n "$1" ] && module load "$1" >/dev/null 2>&1; command -v python3' _ "$1" |
        tail -n 1)
    "${python:-python3}" -m pip --version >/dev/null 2>&1 ||
        rv_fail "no Python with pip on the login node to install uv with; $hint" ||
        return 1
    # what a killed run left
    rm -rf "$tools/.uv-new"
    mkdir -p "$tools/bin" || return 1
    said=$("${python:-python3}" -m pip install --quiet --no-deps --target "$tools/.uv-new" uv 2>&1) ||
        rv_fail "pip could not install uv: ${said##*"$rv_newline"}; $hint" || return 1
    "$tools/.uv-new/bin/uv" --version >/dev/null ||
        rv_fail "the uv that pip brought does not run here; install uv by hand" || return 1
    rv_renew "$tools/.uv-new" && mv -f "$tools/.uv-new/bin/uv" "$tools/bin/uv" && rm -rf "$tools/.uv-new"
}
