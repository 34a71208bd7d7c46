#!/bin/sh
# A layer: an environment with what a stage of a pipeline adds to it, in a directory of its own beside
# it.  Its files are links to those of the base, but for what differs: other packages, and programs and
# settings that name the environment's path.
# Travels behind build_environment.sh, whose steps it uses.  The recipe of a layer is that of its base
# with these lines in front: `digest KEY`, `base DIGEST`, `installer uv|pip`, `option WORD`,
# `line REQUIREMENT`, and `pin PATTERN` for packages that must stay as they are in the base.
# It is built in .healing beside its place and then takes it, so none is ever half there.
# shellcheck shell=sh
# shellcheck disable=SC2154 # variables come from lib.sh and from what builds
# shellcheck disable=SC2034 # and go there

# sound GENERATION: whether nothing is known against it.
sound() {
    [ -s "$1/.rvstate-environment" ] && [ -x "$1/bin/python" ] || return 1
    state=
    if [ -s "$1/.rvstate/verified" ]; then read -r _ state <"$1/.rvstate/verified"; fi
    [ "$state" != damaged ]
}

# What was added to $damaged by hand, and what a job saw added whose traces a purge has taken with it.
find_extra() {
    distributions "$damaged" | sed 's/==.*//' | plain >"$damaged/.rvstate/names"
    added "$damaged" | sed -n 's/^added //p'
    if [ -s "$damaged/.rvstate/added" ]; then by_name "$damaged/.rvstate/names" <"$damaged/.rvstate/added"; fi
}

# Put in place what killed menders of the branch had whole already, for its directory is needed.
adopt_all() {
    for one in "$branch"/.healing/*; do
        if [ -d "$one" ]; then adopt "$branch/${one##*/}"; fi
    done
}

# build_layer RECIPE CHECK: make the layer $at over $base in $generation, stamped; RECIPE are its own
# lines, CHECK is the program that checks.
build_layer() {
    whole_base && room || return 1
    half=${generation%/*}
    rm -rf "$half" && mkdir -p "${generation%/*}" && clone_base || return 1
    place=$generation/.rvstate
    mkdir "$place" && { cat "$1" && sed -e '/^digest /d' "$base/.rvstate/recipe"; } >"$place/recipe" &&
        cp "$2" "$place/check.py" || return 1
    for one in sources whole deferred; do
        if [ -e "$base/.rvstate/$one" ]; then cp -R "$base/.rvstate/$one" "$place/" || return 1; fi
    done
    mkdir -p "$place/sources"
    if [ -s "$inputs/installed-former" ]; then cp "$inputs/installed-former" "$place/" || return 1; fi
    prepare_layer && as_built || return 1
    if [ -e "$place/whole" ]; then
        printf 'note what the stage adds is installed by its first job, like the environment itself\n'
    else
        node=
        use_former && lay || return 1
    fi
    # both only read, and wait for the file system
    list_installed &
    listing=$!
    check_layer
    checked=$?
    wait "$listing" && [ "$checked" = 0 ] && keep_tools && put_back_added && repath "$generation" "$at" && read_only && stamp
}

# A layer of a damaged base would be damaged, too.
whole_base() {
    [ "${whole-}" != "$base" ] || return 0
    if ! [ -s "$base/.rvstate-environment" ] || ! [ -x "$base/bin/python" ]; then
        rv_fail "the environment that it is a layer of, $base, is not there; the next rvstate run builds it" || return 1
    fi
    if rv_compare "$base" "$base/.rvstate/manifest" | grep -q -v '^added '; then
        printf '%s damaged\n' "$(date +%s)" | rv_store "$base/.rvstate/verified" 644
        rv_fail "the environment that it is a layer of, $base, lost files; rvstate converge mends it" || return 1
    fi
    whole=$base
}

# All of the base as links; where a file system knows none, as copies.
clone_base() {
    mkdir "$generation" || return 1
    printf 'linking the files of %s\n' "${base##*/}" >&2
    copied=
    for one in "$base"/* "$base"/.[!.]*; do
        case ${one##*/} in
            # tools lock that of each environment
            .rvstate | .rvstate-environment | .lock) continue ;;
        esac
        if ! [ -e "$one" ] && ! [ -L "$one" ]; then continue; fi
        if link_entry || link_entry; then continue; fi
        nice cp -a -- "$one" "$generation/" ||
            rv_fail "the files of $base could not be copied; is the file system full?" || return 1
        copied=yes
    done
    if [ -n "$copied" ]; then
        printf 'note files cannot be linked there, so each layer is a copy: more space, more time\n'
    fi
    repath "$base" "$generation"
}

# Once more where it fails: a job may write bytecode there meanwhile, whose first name soon goes.
link_entry() {
    nice cp -al -- "$one" "$generation/" 2>/dev/null && return 0
    rm -rf "${generation:?}/${one##*/}"
    return 1
}

# repath FROM TO: what names the environment's own path names another one; each such file is a copy
# from then on.
repath() {
    from=$(printf '%s' "$1" | sed 's/[][\.*^$|]/\\&/g')
    to=$(printf '%s' "$2" | sed 's/[&|\]/\\&/g')
    set -- "$1" "$generation/bin" "$generation/pyvenv.cfg" "$generation"/lib/python*/site-packages/*.pth \
        "$generation/share/jupyter/kernels"
    # in place would be in the base, too; sed -i makes a new file
    grep -r -l -I -Z -F -s -e "$@" | xargs -0 -r sed -i -e "s|$from|$to|g"
}

# The base as it was built: what was installed or removed by hand since is nothing that a key knows of.
as_built() {
    [ "$(recipe kind)" != conda ] || return 0
    distributions "$generation" >"$place/here"
    sed 's/==.*//' "$base/.rvstate/installed" | plain >"$place/names"
    by_name "$place/names" <"$place/here" >"$place/extra"
    comm -23 "$base/.rvstate/installed" "$place/here" >"$place/lacking"
    if [ -s "$place/extra" ]; then
        printf 'note the environment has %s by hand, which no layer gets; add it to the requirements to have it in all\n' \
            "$(paste -s -d ' ' - <"$place/extra")"
        sed 's/==.*//' "$place/extra" >"$place/names"
        gently "$uv" pip uninstall --quiet --python "$generation/bin/python" --requirement "$place/names" >&2 </dev/null ||
            return 1
    fi
    if [ -s "$place/lacking" ]; then
        install_exactly "$place/lacking" ||
            rv_fail "packages of the environment were changed by hand, and cannot be had as they were" || return 1
    fi
    rm -f "$place/extra" "$place/lacking" "$place/names"
}

# install_exactly FILE: the NAME==VERSION in it, from where the base's packages come, or from the cache.
install_exactly() {
    cat "$place/indexes" "$1" >"$place/sources/.exactly.txt"
    set -- "$uv" pip install --quiet --no-deps --python "$generation/bin/python" --requirement "$place/sources/.exactly.txt"
    (cd -- "$place/sources" && { gently "$@" || gently "$@" --offline; }) >&2 </dev/null
    set -- "$?"
    rm -f "$place/sources/.exactly.txt"
    return "$1"
}

# What is asked for, as files: asked (with the indexes of the base where the stage names none), options,
# fixed (packages that stay as they are in the base).
prepare_layer() {
    recipe line >"$place/lines"
    recipe option >"$place/options"
    : >"$place/indexes"
    if ! cat "$place/options" "$place/lines" |
        grep -q -E -e '^--(index-url|default-index|no-index|extra-index-url|index)([ =]|$)'; then
        index_options >"$place/indexes"
    fi
    # where what the indexes name by a path is found from
    cat "$place/indexes" "$place/lines" >"$place/sources/.layer.txt"
    : >"$place/together"
    find_fixed <"$base/.rvstate/installed"
}

# Of the NAME==VERSION on standard input, those that the recipe's patterns name.
find_fixed() {
    recipe pin >"$place/pins"
    awk -v patterns="$place/pins" '
        BEGIN {
            while ((getline pattern <patterns) > 0) {
                gsub(/[^a-z0-9*-]/, "", pattern)
                gsub(/\*/, ".*", pattern)
                wanted[++count] = "^" pattern "$"
            }
        }
        {
            name = tolower($0)
            sub(/==.*/, "", name)
            gsub(/[-_.]+/, "-", name)
            for (i = 1; i <= count; i++) if (name ~ wanted[i]) { print; next }
        }' >"$place/fixed"
}

# Install what the stage adds; together with what that would leave in contradiction, where it would.
# With $node set it is on a compute node, where nothing is left for a job any more.
lay() {
    option=${node:+--no-build-isolation}
    mended=
    tries=0
    printf 'installing what the stage adds, by %s\n' "$(recipe installer)" >&2
    while :; do
        # shellcheck disable=SC2086 # an option or nothing
        if ! install_lines $option; then
            if mend_cache; then continue; fi
            if [ -n "$option" ]; then
                option=
                continue
            fi
            if [ -s "$place/versions" ]; then
                printf 'its former versions cannot be had any more\n' >&2
                : >"$place/versions"
                continue
            fi
            if [ -z "$node" ] && leave_for_job; then return 0; fi
            why_not_laid
            return 1
        fi
        stays_fixed || return 1
        # what is left for a job may be what is missing
        if has_option --no-deps || { [ -z "$node" ] && [ -s "$place/deferred" ]; }; then break; fi
        if agrees; then break; fi
        tries=$((tries + 1))
        if [ "$tries" -gt 3 ] || ! [ -s "$place/against" ]; then
            rv_fail "what the stage adds contradicts the environment: $(head -n 1 "$place/said"); name that package in the stage, too" ||
                return 1
        fi
        sort -u -o "$place/together" "$place/together" "$place/against"
    done
    respoiled_layer
}

has_option() {
    grep -q -x -e "$1" "$place/options"
}

# The versions that the layer had before, but for what must be as in the base.
use_former() {
    : >"$place/versions"
    [ -s "$place/installed-former" ] || return 0
    sed 's/==.*//' "$place/fixed" | plain >"$place/let-go"
    by_name "$place/let-go" <"$place/installed-former" >"$place/versions"
}

# install_lines OPTION...
install_lines() {
    if [ "$(recipe installer)" = pip ]; then
        bring_pip || return 1
        # where else to install is nobody's to say
        set -- env -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT -u PIP_USER -u PIP_DRY_RUN \
            PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off \
            "$generation/bin/python" -m pip install "$@"
    else
        set -- "$uv" pip install --python "$generation/bin/python" "$@"
    fi
    for one in fixed versions; do
        # where hashes are asked for they are asked of these, too; afterwards it is looked at all the same
        if [ -s "$place/$one" ] && [ -z "${free_to_move-}" ] && ! grep -q -e --hash "$place/lines"; then set -- "$@" --constraint "$place/$one"; fi
    done
    while IFS= read -r one; do set -- "$@" "$one"; done <"$place/options"
    if [ -s "$place/together" ]; then set -- "$@" --requirement "$place/together"; fi
    (cd -- "$place/sources" && aloud "$@" --requirement "$place/sources/.layer.txt")
}

# Nothing says that the base has pip; Python brings one of its own, uv can fetch one.
bring_pip() {
    "$generation/bin/python" -m pip --version >/dev/null 2>&1 && return 0
    gently "$generation/bin/python" -m ensurepip >/dev/null 2>&1 ||
        gently "$uv" pip install --quiet --python "$generation/bin/python" pip >&2 </dev/null ||
        rv_fail "the environment has no pip, and none could be brought"
}

# What cannot be built here is left for the stage's first job, with all that the stage adds.
leave_for_job() {
    name=$(unbuilt)
    [ -n "$name" ] && [ "$(recipe internet)" != no ] || return 1
    printf '%s\n' "$name" >>"$place/deferred"
    printf '%s cannot be built here and is left for the job on a compute node\n' "$name" >&2
    printf 'deferred %s\n' "$name"
    # without isolation a build finds its backend in the environment
    aloud "$uv" pip install --python "$generation/bin/python" setuptools wheel
}

# Said of a failure: that it is about a package that must stay, with both versions, or the installer's words.
why_not_laid() {
    if [ -s "$place/fixed" ]; then
        cp "$place/said" "$place/failed"
        free_to_move=yes
        install_lines --dry-run >/dev/null 2>&1 && would_be <"$place/said" >"$place/then"
        free_to_move=
        cp "$place/failed" "$place/said"
        if [ -s "$place/then" ] && moved=$(against_fixed "$place/then") && [ -n "$moved" ]; then
            refuse_move "$moved"
            return
        fi
    fi
    why
}

# would_be: of what an installer says that it would do, NAME==VERSION of what would come.
would_be() {
    sed -n -e 's/^ *+ \([A-Za-z0-9][A-Za-z0-9._-]*==[^ ]*\).*/\1/p' -e 's/^Would install //p' | tr ' ' '\n' |
        sed -e '/==/!s/-\([^-]*\)$/==\1/'
}

# against_fixed FILE: of the NAME==VERSION in it, the first that is another than the base's: NAME NEW OLD.
against_fixed() {
    awk -F == '
        function plain(name) { name = tolower(name); gsub(/[-_.]+/, "-", name); return name }
        FILENAME == ARGV[1] { fixed[plain($1)] = $2; next }
        (plain($1) in fixed) && fixed[plain($1)] != $2 { print $1, $2, fixed[plain($1)]; exit }' "$place/fixed" "$1"
}

stays_fixed() {
    [ -s "$place/fixed" ] || return 0
    distributions "$generation" >"$place/here"
    moved=$(against_fixed "$place/here")
    [ -z "$moved" ] || refuse_move "$moved"
}

# refuse_move "NAME NEW OLD"
refuse_move() {
    # shellcheck disable=SC2086 # its words
    set -- $1
    printf 'refused %s would be %s and is %s in the base, where pin_to_base keeps it\n' "$@"
    return 1
}

# Whether no two packages contradict each other; else the names of those that do in $place/against.
agrees() {
    : >"$place/against"
    gently "$uv" pip check --python "$generation/bin/python" >"$place/said" 2>&1 </dev/null && return 0
    # The package `a` requires `b>=2`, but `1` is installed
    # shellcheck disable=SC2016 # uv's own marks
    sed -n -e 's/^The package `\([^`]*\)` requires .*/\1/p' "$place/said" | sort -u >"$place/against"
    sed -i -n -e '/^The package/p' "$place/said"
    return 1
}

# Of what the base has not: files of the cache that are gone, or that somebody changed by force; those
# packages anew.
respoiled_layer() {
    distributions "$generation" >"$place/here"
    before=$base/.rvstate/installed
    [ -s "$before" ] || before=/dev/null
    # shellcheck disable=SC2046 # NAME==VERSION each
    set -- $(comm -13 "$before" "$place/here")
    [ $# -gt 0 ] && find_spoiled "$@" || return 0
    printf '%s\n' "$spoiled" | plain >"$place/spoiled"
    by_name "$place/spoiled" <"$place/here" >"$place/fine"
    comm -13 "$place/fine" "$place/here" >"$place/anew"
    printf 'note files of %s in the cache were changed or are missing, so they are fetched again\n' \
        "$(printf '%s\n' "$spoiled" | paste -s -d ' ' -)"
    # shellcheck disable=SC2086 # names of packages
    clean_cache $spoiled || return 1
    sed 's/==.*//' "$place/anew" >"$place/names"
    gently "$uv" pip uninstall --quiet --python "$generation/bin/python" --requirement "$place/names" >&2 </dev/null
    install_exactly "$place/anew"
}

check_layer() {
    "$generation/bin/python" -c 'import sys' || rv_fail "its Python does not run" || return 1
    if [ -e "$place/whole" ] || [ -s "$place/deferred" ]; then return 0; fi
    printf 'checking that what was declared can be imported\n' >&2
    # shellcheck disable=SC2046 # module names
    gently "$generation/bin/python" "$place/check.py" imports "$place/imported" "${at%/*/*}" \
        "$(recipe imports)" $(recipe import) ||
        rv_fail "the layer was built, and what it is for cannot be imported" || return 1
}

# An edit in place would reach the base and every other layer; directories stay open, for bytecode and
# for pip, which replaces files.
read_only() {
    find "$generation" -path "$generation/.rvstate" -prune -o -type f ! -name .lock -perm /222 -exec chmod a-w {} +
}

# What was added to a layer by hand before it was built again; the list of what was built leaves it out.
put_back_added() {
    [ -s "$inputs/added" ] || return 0
    install_exactly "$inputs/added" ||
        printf 'note what was added by hand could not be put back: %s\n' "$(paste -s -d ' ' - <"$inputs/added")"
}

# What a layer's first job installs on its node, behind what was left of the base (finish_main).
finish_layer() {
    [ -s "$place/lines" ] || return 0
    : >"$place/versions"
    base=${generation%/*}/$(recipe base)
    # nothing was there to be fixed when the base was left to the job, too
    if [ "$(recipe build)" = job ]; then distributions "$generation" | find_fixed; fi
    node=yes
    lay >&2 && read_only
}
