#!/bin/sh
# Mend environments that lost files.
#   main PATIENCE TOOLS CACHE LINK...
# LINK: a branch's link to its environment, found damaged by the look.  TOOLS: where rvstate keeps
# programs.  CACHE: uv's.  Each is looked at once more under the lock of its branch's builds.
# One that keeps what it was built from, in itself or beside it, is built again aside in the same
# versions (build_environment.sh travels in front),
# or unpacked from its kept copy (kept_copy.sh, too), what was added by hand is put back, and the
# whole takes its place.  Any other loses link and stamp,
# so that the next run of its project builds it anew.  A LINK may also be a layer's own directory
# (layer.sh), which is made again from its base.
# Says "done N [NOTE]" or "failed N REASON" for each.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front
# shellcheck disable=SC2034 # what building is told

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
    case $link in
        */.generations/*/layer-*)
            heal_layer
            return
            ;;
    esac
    [ -L "$link" ] || return 0
    damaged=$(readlink "$link")
    case $damaged in
        "${link%/*}"/.generations/*/*) ;;
        *) rv_fail "$link leads to $damaged, which rvstate did not make" || return 1 ;;
    esac
    branch=${damaged%/*}
    fresh=$branch/.healing/${damaged##*/}
    if [ -d "$branch" ]; then rv_lock "$branch/lock" "$patience" || return 1; fi
    # somebody may have built it anew meanwhile
    if [ "$(readlink "$link" 2>/dev/null)" != "$damaged" ] || sound "$damaged"; then
        rm -rf "$branch/.healing"
        return 0
    fi
    recall
    if unharmed; then
        printf 'what it was built from was put back\n'
        return 0
    fi
    if ! sound "$fresh" && remembered; then rebuild || return 1; fi
    if sound "$fresh"; then
        take_its_place
    else
        # the stamp first: without it nothing takes the generation for finished
        rm -f "$damaged/.rvstate-environment" && rm -f "$link" &&
            printf 'it does not keep what it was built from; the next run of its project builds it\n'
    fi
}

# Put back what it was built from, from the copy beside it: single files of it may be gone, or cut.
recall() {
    kept=$branch/.${damaged##*/}.kept
    if [ -s "$kept" ] && tar -tf "$kept" >/dev/null 2>&1; then
        mkdir -p "$damaged/.rvstate" && tar -C "$damaged/.rvstate" -xmf "$kept"
    fi
}

# Whether there is all that a build needs.
remembered() {
    [ -s "$damaged/.rvstate/recipe" ] && [ -s "$damaged/.rvstate/check.py" ] &&
        [ -d "$damaged/.rvstate/sources" ] || return 1
    sed -n 's/^source //p' "$damaged/.rvstate/recipe" | while IFS= read -r source; do
        [ -e "$damaged/.rvstate/sources/$source" ] || exit 1
    done
}

# Whether nothing but what it was built from was damaged, and that is back.
unharmed() {
    [ -s "$damaged/.rvstate-environment" ] && "$damaged/bin/python" -c '' >/dev/null 2>&1 </dev/null &&
        rv_whole "$damaged/.rvstate/manifest" || return 1
    ! rv_compare "$damaged" "$damaged/.rvstate/manifest" | grep -q -v '^added ' || return 1
    printf '%s sound\n' "$(date +%s)" | rv_store "$damaged/.rvstate/verified" 644
}

# A layer is made again over its base, in the same versions; where that is gone, the next run of its
# pipeline makes it.
heal_layer() {
    damaged=$link
    branch=${damaged%/*}
    [ -d "$branch" ] || return 0
    rv_lock "$branch/lock" "$patience" || return 1
    adopt_all
    if sound "$damaged" || ! [ -d "$damaged" ]; then return 0; fi
    recall
    if unharmed; then
        printf 'what it was built from was put back\n'
        return 0
    fi
    base=$branch/$(sed -n 's/^base //p' "$damaged/.rvstate/recipe" 2>/dev/null)
    if ! sound "$base" || ! [ -s "$damaged/.rvstate/check.py" ]; then
        # what its branch uses is mended before
        [ "$(readlink "${branch%/.generations/*}/${branch##*/}" 2>/dev/null)" != "$base" ] ||
            rv_fail "the environment that it is a layer of is damaged" || return 1
        rm -f "$damaged/.rvstate-environment" &&
            printf 'its environment is not there any more; the next run of its pipeline makes it\n'
        return
    fi
    find_uv || return 1
    generation=$branch/.healing/${damaged##*/}
    at=$damaged
    lock=$branch/lock
    inputs=$branch/.inputs-layers
    trap 'rm -rf "$inputs" "$branch/.healing"; rv_unlock' EXIT
    rm -rf "$inputs" && mkdir "$inputs" && remember "$damaged" || return 1
    find_extra >"$inputs/added"
    sed -n '/^\(digest\|base\|installer\|option\|line\|pin\) /p' "$damaged/.rvstate/recipe" >"$inputs/recipe"
    said=$(build_layer "$inputs/recipe" "$damaged/.rvstate/check.py" 2>&1) || {
        said=${said##*"$rv_newline"}
        rv_fail "it could not be built again: ${said#rvstate: }" || return 1
    }
    trap 'rm -rf "$inputs"; rv_unlock' EXIT
    exchange "$damaged" && printf 'it was built again\n%s' "$(printf '%s\n' "$said" | sed -n 's/^note /; /p')" | tr -d '\n'
}

# Build $fresh from what $damaged keeps; stamped when all of it is as it will be.
rebuild() {
    find_uv || return 1
    find_extra >"$damaged/.rvstate/extra" || return 1
    rm -rf "$branch/.healing" && mkdir -p "$fresh" || return 1
    said=$(remake 2>&1) && return 0
    rm -rf "$fresh"
    said=${said##*"$rv_newline"}
    rv_fail "it could not be built again: ${said#rvstate: }"
}

# Sets uv.
find_uv() {
    # a PATH of another shell may have had it
    uv=$(PATH=$PATH:$HOME/.local/bin:$HOME/.cargo/bin:$tools/bin && command -v uv) ||
        { read -r uv <"$damaged/.rvstate/tools" && [ -x "$uv" ]; } 2>/dev/null ||
        rv_fail "there is no uv to build it with; run converge again"
}

# As a run's build does it, and what was added by hand on top.
remake() {
    lock=$branch/lock
    generation=$fresh
    at=$damaged
    backup=$(sed -n 3p "$damaged/.rvstate/tools" 2>/dev/null)
    inputs=$branch/.inputs-${damaged##*/}
    trap 'rm -rf "$inputs"' EXIT
    room && rm -rf "$inputs" && mkdir "$inputs" || return 1
    cp -R -p "$damaged/.rvstate/recipe" "$damaged/.rvstate/sources" "$damaged/.rvstate/check.py" \
        "$damaged/.rvstate/extra" "$inputs/" && remember "$damaged" &&
        { unpack_copy "$damaged" || build; } && put_back && relocate && stamp && keep_copy "$fresh" "$damaged"
}

# What the user had added by hand, each in its version or from where it came.
put_back() {
    if [ "$(recipe kind)" = conda ]; then put_back_by_conda; fi
    [ -s "$place/extra" ] || return 0
    for found in "$damaged"/lib/python*/site-packages; do
        if [ -d "$found" ]; then "$fresh/bin/python" "$place/check.py" origins "$found"; fi
    done >"$place/extra-origins" 2>/dev/null
    awk 'FILENAME == ARGV[1] { at = index($0, " "); from[substr($0, 1, at - 1)] = substr($0, at + 1); next }
        { print ($0 in from) ? from[$0] : $0 }' "$place/extra-origins" "$place/extra" >"$place/extra-wanted"
    # the indexes and places that the project names
    for source in "$place"/sources/*.txt; do
        if [ -f "$source" ]; then grep -E '^[[:space:]]*(--?(extra-)?index-url|-i|--find-links|-f|--no-index|--pre|--trusted-host)' "$source"; fi
    done >"$place/places"
    add "$place/extra-wanted" && return 0
    while IFS= read -r one; do
        printf '%s\n' "$one" >"$place/extra-one"
        add "$place/extra-one" || printf '%s\n' "$one" >>"$place/lost"
    done <"$place/extra-wanted"
    return 0
}

# What conda had brought comes by conda: an index may have something else of that name.
put_back_by_conda() {
    : >"$place/extra-pip"
    : >"$place/extra-conda"
    while IFS= read -r one; do
        name=${one%%==*}
        set -- "$damaged/conda-meta/$name-${one#*==}"-*.json
        if [ -e "$1" ]; then
            printf '%s=%s\n' "$name" "${one#*==}" >>"$place/extra-conda"
        elif ! grep -q -s conda "$damaged"/lib/python*/site-packages/"$name-${one#*==}.dist-info/INSTALLER"; then
            printf '%s\n' "$one" >>"$place/extra-pip"
        fi
    done <"$place/extra"
    mv "$place/extra-pip" "$place/extra"
    # shellcheck disable=SC2046 # NAME=VERSION each
    if [ -s "$place/extra-conda" ] &&
        ! gently "$conda" install --yes --prefix "$fresh" $(cat "$place/extra-conda") </dev/null; then
        cat "$place/extra-conda" >>"$place/lost"
    fi
}

# add FILE: install what it lists and nothing else; from the cache alone where no index has it.
add() {
    cat "$place/places" "$1" >"$place/asked"
    (cd -- "$place/sources" &&
        { install_asked </dev/null || install_asked --offline </dev/null; }) >/dev/null 2>&1
}

install_asked() {
    gently "$uv" pip install --quiet --no-deps "$@" --python "$fresh/bin/python" --requirement "$place/asked"
}

# Programs name the interpreter by its path, which is another one in a moment.
relocate() {
    find "$fresh" -name __pycache__ -prune -exec rm -rf {} + || return 1
    here=$(printf '%s' "$fresh" | sed 's/[][\.*^$|]/\\&/g')
    there=$(printf '%s' "$damaged" | sed 's/[&|\]/\\&/g')
    grep -r -l -I -Z -F -e "$fresh" "$fresh" | xargs -0 -r sed -i -e "s|$here|$there|g"
}

take_its_place() {
    exchange "$damaged" || return 1
    place=$damaged/.rvstate
    if grep -q -s '^unpacked ' "$place/copy"; then
        printf 'it was unpacked from its kept copy'
    else
        printf 'it was built again'
    fi
    if [ -s "$place/otherwise" ]; then printf '; %s' "$(otherwise)"; fi
    sed -n -e 's/^note /; /p' -e 's/^kept [0-9]* /; a copy of it is kept in /p' "$place/copy" 2>/dev/null | tr -d '\n'
    rm -f "$place/copy"
    if [ -s "$place/lost" ]; then
        printf '; what was added by hand and could not be put back: %s' "$(paste -s -d ' ' - <"$place/lost")"
    fi
    printf '\n'
}
