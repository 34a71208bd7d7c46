#!/bin/sh
# How an environment is made, before anything is installed in it: which Python, and by what.
# Travels in front of build_environment.sh.
# shellcheck shell=sh
# shellcheck disable=SC2154 # variables come from lib.sh and from what builds

make_environment() {
    case $(recipe kind) in
        uv)
            set -- --quiet --python "$interpreter"
            if [ "$(recipe relocatable)" = yes ]; then set -- "$@" --relocatable; fi
            # from /, for a project's settings of uv may hide the index that has pip
            if (cd / && aloud "$uv" venv --seed "$@" "$generation"); then
                return 0
            fi
            rm -rf "$generation"
            # no index: Python brings a pip of its own
            (cd / && gently "$uv" venv "$@" "$generation" >&2 &&
                gently "$generation/bin/python" -m ensurepip >/dev/null 2>&1) ||
                rv_fail "uv could not make an environment with $interpreter"
            ;;
        venv)
            gently "$interpreter" -m venv "$generation" >&2 ||
                rv_fail "$interpreter -m venv could not make an environment"
            ;;
        virtualenv)
            make_virtualenv >&2 || rv_fail "virtualenv could not make an environment with $interpreter"
            ;;
        conda) make_conda ;;
        *) rv_fail "this rvstate cannot build a $(recipe kind) environment" ;;
    esac
}

make_virtualenv() {
    if command -v virtualenv >/dev/null 2>&1; then
        gently virtualenv --quiet --python "$interpreter" "$generation"
    elif "$interpreter" -c 'import virtualenv' 2>/dev/null; then
        gently "$interpreter" -m virtualenv --quiet "$generation"
    else
        gently "$uv" tool run --quiet virtualenv --quiet --python "$interpreter" "$generation"
    fi
}

make_conda() {
    # shellcheck disable=SC2016 # expanded there
    conda=$(bash -lc '[ -z "$1" ] || module load "$1" >/dev/null 2>&1
        command -v mamba || command -v micromamba || command -v conda' _ "$(recipe module)" | tail -n 1)
    [ -x "$conda" ] ||
        rv_fail "there is no conda, mamba or micromamba on the login node; set [modules] python to one that brings it" ||
        return 1
    source=$inputs/sources/$(recipe source | head -n 1)
    case ${conda##*/} in
        micromamba) set -- "$conda" create --prefix "$generation" --file "$source" ;;
        *) set -- "$conda" env create --prefix "$generation" --file "$source" ;;
    esac
    # the option --yes is not known to all of their versions
    aloud env CONDA_ALWAYS_YES=true MAMBA_ALWAYS_YES=true "$@" || rv_fail "${conda##*/} could not make the environment"
}

find_python() {
    python=$(recipe python)
    module=$(recipe module)
    [ "$(recipe kind)" != conda ] || return 0
    case $python in
        /*)
            [ -x "$python" ] || rv_fail "there is no Python at $python" || return 1
            printf '%s' "$python"
            return 0
            ;;
        ?*)
            # the site's module may be that version, else uv brings one
            found=$(module_python 2>/dev/null)
            case $("${found:-false}" --version 2>&1) in
                "Python $python" | "Python $python."*) ;;
                *) found=$(gently "$uv" python find "$python" 2>/dev/null) || found=$python ;;
            esac
            [ "$(recipe kind)" = uv ] || [ -x "$found" ] ||
                rv_fail "there is no Python $python on the login node" || return 1
            ;;
        *) found=$(module_python) || return 1 ;;
    esac
    printf '%s' "$found"
}

module_python() {
    if [ -n "$module" ]; then
        # a login shell, for `module` is a function that the site's profile defines
        # shellcheck disable=SC2016 # expanded there
        found=$(bash -lc 'module load "$1" >/dev/null 2>&1 || exit 1; command -v python3' _ \
            "$module" | tail -n 1)
        [ -x "$found" ] || rv_fail "module load $module brings no python3" || return 1
    else
        found=$(command -v python3) || rv_fail "there is no python3 on the login node" || return 1
    fi
    printf '%s' "$found"
}
