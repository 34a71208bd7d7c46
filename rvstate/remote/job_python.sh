#!/bin/bash
# The steps of a job that put an environment in front, or find that it is not there; one file with job.sh
# on the cluster.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the other steps of a job have these

# rv_modules NAME...: load environment modules, all or none.
rv_modules() {
    [ $# -gt 0 ] || return 0
    if ! type module >/dev/null 2>&1; then
        # a batch shell reads no start-up files
        # shellcheck source=/dev/null
        [ -r /etc/profile ] && . /etc/profile >/dev/null 2>&1
    fi
    type module >/dev/null 2>&1 || rv_give_up "this node has no module command, needed for: $*"
    module load "$@" || rv_give_up "module load $* failed; see [modules] in ~/.rv/config.toml"
}

# rv_environment DIRECTORY: put a Python environment in front.
rv_environment() {
    if ! [ -x "$1/bin/python" ] && [ -d "${1%/*}/.healing" ]; then
        printf 'rvstate: the environment is being mended; waiting for it\n' >&2
        rv_build arrive "$1"
    fi
    [ -x "$1/bin/python" ] || rv_give_up "the environment $1 is gone; submit again to rebuild it"
    if [ -s "$1/.rvstate/deferred" ] || [ -e "$1/.rvstate/whole" ]; then rv_finish "$1"; fi
    rv_generation=$1
    # a module of Python brings them for its own
    unset PYTHONHOME PYTHONPATH
    if [ -d "$1/conda-meta" ]; then rv_conda "$1"; else rv_venv "$1"; fi
    rv_promise "$1/bin/python"
}

# rv_promise PYTHON: what `python` is to be for the user's program, on every node; conda also makes
# environments without one.
rv_promise() {
    if [ -x "$1" ]; then
        RV_PYTHON=$1
        export RV_PYTHON
    fi
}

# rv_finish GENERATION: build what the login node could not, with the site's compiler; the job ends
# here where that fails.  Jobs that start at once wait for the first of them.
rv_finish() {
    local compiler what="environment"
    if [ -s "$1/.rvstate/deferred" ]; then
        what="environment's packages ($(paste -s -d ' ' - <"$1/.rvstate/deferred"))"
    fi
    compiler=$(sed -n 's/^compiler //p' "$1/.rvstate/recipe" 2>/dev/null)
    (
        if [ -n "$compiler" ]; then rv_modules "$compiler"; fi
        rv_build finish "$1"
    ) || rv_give_up "the $what could not be built on this node; the lines above say why"
}

# rv_build VERB GENERATION: what builds environments, in a shell of its own.
rv_build() {
    # shellcheck disable=SC2016 # expanded there
    sh -c '. "$1/lib.sh" && . "$1/environment.sh" && main "$2" "$3"' sh "${BASH_SOURCE[0]%/*}" "$@" >&2
}

rv_venv() {
    VIRTUAL_ENV=$1
    PATH=$1/bin:$PATH
    export VIRTUAL_ENV PATH
}

# rv_conda PREFIX: as `conda activate PREFIX`, which also runs the packages' own hooks; by hand where
# the site's conda is not to be found.  Never by name, and never by a start-up file.
rv_conda() {
    local base hook
    for base in "${CONDA_EXE:+${CONDA_EXE%/bin/*}}" "${1%/envs/*}" "$(rv_beside conda)" "$(rv_beside mamba)"; do
        [ -n "$base" ] && [ -r "$base/etc/profile.d/conda.sh" ] || continue
        # shellcheck source=/dev/null
        if . "$base/etc/profile.d/conda.sh" && conda activate "$1"; then
            PATH=$1/bin:$PATH
            return 0
        fi
        printf 'rvstate: conda activate %s failed; its hooks are run without conda\n' "$1" >&2
        break
    done
    CONDA_PREFIX=$1
    CONDA_DEFAULT_ENV=$1
    PATH=$1/bin:$PATH
    export CONDA_PREFIX CONDA_DEFAULT_ENV PATH
    for hook in "$1"/etc/conda/activate.d/*.sh; do
        # shellcheck source=/dev/null
        if [ -r "$hook" ]; then . "$hook"; fi
    done
}

# rv_beside PROGRAM: the installation that a program on PATH belongs to.
rv_beside() {
    local found
    found=$(command -v "$1") && [ -x "$found" ] || return 0
    found=$(readlink -f "$found")
    printf '%s' "${found%/bin/*}"
}

# rv_activate KIND PLACE...: an environment that is there: the first place that is.  A PLACE without
# a slash is the name of a conda environment.
rv_activate() {
    local kind=$1 place found=
    shift
    for place; do
        case $place in
            */*) ;;
            *) place=$(rv_conda_prefix "$place") ;;
        esac
        if [ -n "$place" ] && [ -e "$place" ]; then
            found=$place
            break
        fi
    done
    [ -n "$found" ] || rv_give_up "there is no environment at $*; mend path in [environment]"
    unset PYTHONHOME PYTHONPATH
    if [ "$kind" = apptainer ]; then
        rv_container=$found
    elif [ -f "$found" ] && [ -x "$found" ]; then
        # exactly this interpreter, under the names that commands use
        mkdir -p "$RV_RUN_DIR/python"
        for place in python python3; do
            printf '#!/bin/sh\nexec %q "$@"\n' "$found" >"$RV_RUN_DIR/python/$place" &&
                chmod 700 "$RV_RUN_DIR/python/$place"
        done
        PATH=$RV_RUN_DIR/python:${found%/*}:$PATH
        export PATH
        rv_promise "$found"
    elif [ -d "$found/conda-meta" ]; then
        rv_moved "$found"
        rv_conda "$found"
        rv_promise "$found/bin/python"
    elif [ -x "$found/bin/python" ]; then
        rv_moved "$found"
        rv_venv "$found"
        rv_promise "$found/bin/python"
    else
        rv_give_up "$found is no environment: it has no bin/python"
    fi
}

# rv_moved DIRECTORY: say so where an environment was made in another place.
rv_moved() {
    local made
    made=$(rv_made_as "$1")
    if [ -n "$made" ] && ! [ "$made" -ef "$1" ]; then
        printf 'rvstate: %s was made as %s and moved since; its programs still name that place\n' "$1" "$made" >&2
    fi
}

# rv_made_as DIRECTORY: the place that an environment was made for, by its activate, by pyvenv.cfg, or
# by the first of its programs that names an interpreter; nothing where all of them are relative.
rv_made_as() {
    local file line made left=100
    made=$(sed -n -E 's/^ *(export )?VIRTUAL_ENV=["'\'']?(\/[^"'\'']*)["'\'']?$/\2/p' "$1/bin/activate" 2>/dev/null | head -n 1)
    [ -n "$made" ] || made=$(sed -n -E 's/^command = .* -m venv (.*[[:space:]])?(\/.*)$/\2/p' "$1/pyvenv.cfg" 2>/dev/null | head -n 1)
    if [ -n "$made" ]; then
        printf '%s' "$made"
        return
    fi
    for file in "$1"/bin/*; do
        # a conda environment has thousands
        [ "$((left--))" -gt 0 ] || return 0
        [ -f "$file" ] && [ -r "$file" ] || continue
        { IFS= read -r -n 1000 line && case $line in '#!/bin/sh') IFS= read -r -n 1000 line ;; esac; } <"$file"
        # a path that is long or has blanks stands in the second line
        line=${line#"'''exec' "}
        line=${line#[\"\']}
        case ${line#'#!'} in
            /usr/bin/* | /usr/local/bin/* | /bin/*) ;;
            /*/bin/python*)
                line=${line#'#!'}
                printf '%s' "${line%%/bin/python*}"
                return
                ;;
        esac
    done
}

# rv_conda_prefix NAME: where a conda environment lies, from conda's own list and the usual places.
rv_conda_prefix() {
    local line base
    while IFS= read -r line; do
        if [ "${line##*/}" = "$1" ] && [ -d "$line/conda-meta" ]; then
            printf '%s' "$line"
            return
        fi
    done < <(cat "$HOME/.conda/environments.txt" 2>/dev/null)
    for base in "$HOME/.conda" "${CONDA_EXE:+${CONDA_EXE%/bin/*}}" "$(rv_beside conda)" "$(rv_beside mamba)"; do
        if [ -d "$base/envs/$1/conda-meta" ]; then
            printf '%s' "$base/envs/$1"
            return
        fi
    done
}

# rv_preflight PYTHON DIRECTORY COMMAND...: say which interpreter `python` is, once on a node, and end
# before the program where that is not the environment's: its results would be another's.
# DIRECTORY: where PYTHON is found by that name.  Without an environment PYTHON is empty, and what is
# there is said where the command starts one.
rv_preflight() {
    local found why functions
    if [ -n "${rv_container-}" ]; then
        found="that of $rv_container"
    elif [ -n "$1" ]; then
        found=$(type -P python)
        functions=$(declare -F)$'\n'
        why=
        if ! [ -x "$1" ]; then
            why="$1 does not run on $(uname -n), for what it leads to is not there: see [modules] python and [environment] python"
        elif [[ $functions = *"declare -fx python"$'\n'* ]]; then
            why="a module or a variable makes \`python\` a function of the shell: take it out of [modules], or unset it"
        elif ! [ "${found%/*}" -ef "$2" ]; then
            why="\`python\` is ${found:-nothing} and not $1: take what brings it out of [modules], of the project's own programs, or of your variables (rvstate env)"
        fi
        if [ -n "$why" ]; then
            printf 'rvstate: the job does not get the Python of its environment; %s; nothing was run\n' "$why" >&2
            exit 1
        fi
        found=$1
    else
        shift 2
        while [ "${1-}" = env ] || [[ ${1-} == *=* ]]; do shift; done
        case ${1-} in python | python[0-9]*) found=$(type -P "$1") || return 0 ;; *) return 0 ;; esac
    fi
    [ "${LOCAL_RANK:-0}" != 0 ] || printf 'rvstate: python is %s\n' "$found" >&2
}
