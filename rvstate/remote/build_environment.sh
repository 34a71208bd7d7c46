#!/bin/sh
# Build one generation of a project's environment aside, check it, and switch the link to it.
#   main build LOCK SECONDS LINK GENERATION UV CACHE CODE STATE TOKEN BACKUP
#       The payload is a tar archive: recipe, inputs (./PATH, each ended by NUL) and check.py.
#       The inputs are taken from CODE, whose manifest must say STATE before and after, else `stale`;
#       STATE -: CODE is a snapshot, which has none and stays as it is.
#   main finish GENERATION     build what was left for a compute node (at a job's start: job.sh)
#   main arrive GENERATION     wait for whoever mends it, and put what is mended in its place
#   main cancel LOCK TOKEN     end the build that was begun with TOKEN; its half is removed
#   main added GENERATION      what was installed by hand since: `added NAME==VERSION`, `gone ...`
# CACHE: uv's cache, on the file system of the environments, so that files are links and not copies.
# What a build came to is kept in GENERATION/.rvstate/installed and, with what it was made from, in
# the archive .NAME.kept beside the generation: built once more, it gets the same versions.
# BACKUP: where a copy of each generation is kept, and looked for first (kept_copy.sh); or empty.
# The stamp is written last, so a build that was killed is invisible.  The recipe's lines are
# `KEY VALUE` (model/environment/spec.py).  Says `built GENERATION`, and beside it `deferred NAME`,
# `note TEXT`, `size FILES BYTES NEW-BYTES`, `unpacked ARCHIVE`, `kept BYTES
# ARCHIVE`.  Progress comes on standard error.  In front travel make_environment.sh,
# install_packages.sh, and layer.sh, which makes the layers of an environment.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front
# shellcheck disable=SC2015 # what stands last says what went wrong, wherever it did

main() {
    verb=$1
    shift
    case $verb in
        build) build_main "$@" ;;
        finish) finish_main "$@" ;;
        arrive) arrive "$1" ;;
        cancel) cancel "$@" ;;
        added) added "$1" ;;
    esac
}

build_main() {
    lock=$1
    link=$3
    generation=$4
    uv=$5
    cache=$6
    code=$7
    state=$8
    token=$9
    backup=${10}
    inputs=${lock%/*}/.inputs-${generation##*/}
    mkdir -p "${lock%/*}" "${link%/*}" || return 1
    # so that it can be ended while it waits, too
    printf '%s\n' "$(ps -o pgid= -p $$ | tr -d ' ')" >"$lock.by-$token"
    if [ -L "$lock" ]; then printf 'waiting for another build of this environment\n' >&2; fi
    rv_lock "$lock" "$2" || { rm -f "$lock.by-$token"; return 1; }
    trap 'abandon' EXIT
    # what killed builds left
    find "$lock".by-* -mtime +1 -exec rm -f {} +
    digest=${generation##*/}
    adopt "$generation"
    if [ "$(head -n 1 "$generation/.rvstate-environment" 2>/dev/null)" != "$digest" ] ||
        ! [ -x "$generation/bin/python" ]; then
        room && take_inputs || return 1
        if [ "$taken" = stale ]; then
            printf 'stale\n'
            return 0
        fi
        half=$generation
        { unpack_copy "$generation" || build; } && stamp || return 1
        half=
        keep_copy "$generation" "$generation"
    elif [ -n "$backup" ] && ! has_copy "$generation" && unchanged; then
        keep_copy "$generation" "$generation"
    fi
    switch || return 1
    report
    printf 'built %s\n' "$generation"
}

# However this ends, nothing half done is left where the end can still be heard.
abandon() {
    # Ctrl-C on one's own machine comes as INT and, by cancel, as TERM
    trap '' HUP INT TERM
    if [ -n "${half-}" ]; then rm -rf "$half"; fi
    if [ -n "${copy-}" ]; then rm -f "$copy.rvstate-tmp-$$"; fi
    rm -rf "$inputs"
    rm -f "$lock.by-$token"
    rv_unlock
}

cancel() {
    read -r group <"$1.by-$2" 2>/dev/null && [ "${group:-0}" -gt 1 ] || return 0
    kill -s TERM -- "-$group" 2>/dev/null
    for pause in 0.2 0.5 1 2; do
        sleep "$pause"
        kill -s 0 -- "-$group" 2>/dev/null || break
    done
    rm -f "$1.by-$2"
    printf 'ended\n'
}

# Whether nothing is known to be lost of the generation since it was built.
unchanged() {
    ! rv_compare "$generation" "$generation/.rvstate/manifest" | grep -q -v '^added '
}

# Enough room to begin with?  What an environment needs is only known when it is there.
room() {
    place=${lock%/*}
    free=$(df -Pk -- "$place" 2>/dev/null | awk 'NR == 2 { print $4 }')
    if [ "${free:-999999}" -lt 102400 ] 2>/dev/null; then
        rv_fail "only $((free / 1024)) MiB are free in $place; make room, for example with rvstate prune" ||
            return 1
    fi
    # some file systems count no inodes
    free=$(df -Pi -- "$place" 2>/dev/null | awk 'NR == 2 && $2 + 0 > 0 { print $4 }')
    if [ "${free:-999999}" -lt 5000 ] 2>/dev/null; then
        rv_fail "only $free files can still be made in $place; make room, for example with rvstate prune" ||
            return 1
    fi
}

# Recipe and inputs, so that what is built is what the digest says, whatever becomes of the code.
take_inputs() {
    taken=
    rm -rf "$inputs" && mkdir -p "$inputs" || return 1
    base64 -d | (cd "$inputs" && tar -xzmof -) || rv_fail "the recipe did not arrive whole" || return 1
    if current && mkdir "$inputs/sources" &&
        { (cd -- "$code" && tar --null -T "$inputs/inputs" -chf -) || : >"$inputs/torn"; } |
        (cd "$inputs/sources" && tar -xmof -) && [ ! -e "$inputs/torn" ] && current; then
        rm -f "$inputs/inputs"
        remember "$generation"
        # the project itself is imported from each job's snapshot, never from an installed copy
        find "$inputs/sources" -name '*.txt' -type f -exec sed -i -E \
            's/^[[:space:]]*((-e|--editable)[ =]?[[:space:]]*)?\.\/?(\[[^]]*\])?([[:space:]]*(;.*|#.*)?)$/# &/' {} +
    else
        taken=stale
    fi
}

# remember GENERATION: what its last build came to, where that is known: former and origins-former.
remember() {
    archive=${1%/*}/.${1##*/}.kept
    for list in installed origins; do
        if [ -s "$1/.rvstate/$list" ]; then
            cp "$1/.rvstate/$list" "$inputs/$list-former"
        elif [ -s "$archive" ]; then
            tar -xOf "$archive" "$list" >"$inputs/$list-former" 2>/dev/null || rm -f "$inputs/$list-former"
        fi
    done
    # of one that a job was still to finish, only the build before knew all
    if { [ -s "$1/.rvstate/deferred" ] || [ -e "$1/.rvstate/whole" ]; } && [ -s "$1/.rvstate/installed-former" ]; then
        cp "$1/.rvstate/installed-former" "$inputs/installed-former"
    fi
    return 0
}

# Whether the code is still that of the run, and not what another one brought meanwhile.
current() {
    [ "$state" = - ] || [ "$(cat "${code%/*}/manifest" 2>/dev/null)" = "$state" ]
}

# recipe KEY: its values in the recipe, one a line.
recipe() {
    sed -n "s/^$1 //p" "$place/recipe"
}

# Gentle: a login node is shared.  Pythons that uv brings stay out of the home directory.
gently() {
    UV_CACHE_DIR=$cache UV_LINK_MODE=${UV_LINK_MODE:-hardlink} UV_NO_PROGRESS=1 \
        UV_PYTHON_INSTALL_DIR=${generation%%/.rv/envs/*}/.rv/tools/python \
        UV_CONCURRENT_INSTALLS=4 UV_CONCURRENT_BUILDS=2 UV_CONCURRENT_DOWNLOADS=8 \
        MAX_JOBS=${MAX_JOBS:-2} CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-2} \
        PYTHONNOUSERSITE=1 nice "$@"
}

# aloud COMMAND...: as gently, with every line on standard error as it comes and in $place/said.
aloud() {
    { gently "$@" 2>&1 </dev/null; echo "$?" >"$place/status"; } | tee "$place/said" >&2
    [ "$(cat "$place/status")" = 0 ]
}

build() {
    rm -rf "$generation" || return 1
    place=$inputs
    interpreter=$(find_python) || return 1
    printf 'making a %s environment with %s\n' "$(recipe kind)" "${interpreter:-the site}" >&2
    make_environment || return 1
    mv "$inputs" "$generation/.rvstate" || return 1
    place=$generation/.rvstate
    recipe deferred >"$place/deferred"
    if [ "$(recipe build)" = job ]; then
        : >"$place/whole"
    elif [ "$(recipe kind)" != conda ]; then
        install_here || return 1
    else
        compare_versions
    fi
    [ -e "$place/whole" ] || install_also || return 1
    [ -s "$place/deferred" ] || [ -e "$place/whole" ] || rm -f "$place/deferred"
    check && list_installed && keep_tools
}

# What is needed to build it again or to finish it, where nobody says so.
keep_tools() {
    printf '%s\n%s\n%s\n' "$uv" "$cache" "$backup" >"$place/tools"
}

check() {
    "$generation/bin/python" -c 'import sys' || rv_fail "its Python does not run" || return 1
    if [ -e "$place/whole" ]; then return 0; fi
    if ! [ -s "$place/deferred" ] && [ "$(recipe kind)" != conda ]; then
        gently "$uv" pip check --quiet --python "$generation/bin/python" >&2 ||
            rv_fail "the installed packages contradict each other" || return 1
    fi
    printf 'checking that what was declared can be imported\n' >&2
    # shellcheck disable=SC2046 # module names
    gently "$generation/bin/python" "$place/check.py" imports "$place/imported" "${generation%/*/*}" \
        "$(recipe imports)" $(recipe import) ||
        rv_fail "the environment was built, and what it is for cannot be imported" || return 1
}

# The last word of a build: what it is checked against later, then the stamp.
stamp() {
    # links into uv's cache are read-only: an edit in place would reach every other environment
    find "$generation" -type f -links +1 -perm -200 -exec chmod a-w {} + || return 1
    measure
    # what it is checked against later (verify.sh); files from a cache may be years old
    rv_renew "$generation" && rv_manifest "$generation" "$place/manifest" &&
        rv_keep_beside "$generation" "${at:-$generation}" || return 1
    {
        printf '%s\n' "${generation##*/}"
        "$generation/bin/python" --version
    } | rv_store "$generation/.rvstate-environment" 644
}

# What was installed, before anybody adds to it.
list_installed() {
    distributions "$generation" >"$place/installed" || return 1
    for found in "$generation"/lib/python*/site-packages; do
        if [ -d "$found" ]; then
            gently "$generation/bin/python" "$place/check.py" origins "$found" >"$place/origins" || return 1
        fi
    done
}

measure() {
    find "$generation" -type f -printf '%n %s\n' 2>/dev/null |
        awk '{ files++; bytes += $2; if ($1 == 1) own += $2 }
            END { printf "%.0f %.0f %.0f\n", files, bytes, own }' >"$place/size"
}

report() {
    place=$generation/.rvstate
    if [ -e "$place/whole" ]; then printf 'note everything is installed by the first job\n'; fi
    if [ -s "$place/deferred" ]; then sed 's/^/deferred /' "$place/deferred"; fi
    if [ -s "$place/size" ]; then printf 'size %s\n' "$(cat "$place/size")"; fi
    if [ -s "$place/otherwise" ]; then printf 'note %s\n' "$(otherwise)"; fi
    # of this time only
    if [ -s "$place/copy" ]; then cat "$place/copy" && rm -f "$place/copy"; fi
}

# What came in another version than the last time, in words.
otherwise() {
    if [ "$(recipe kind)" = conda ]; then
        printf 'other versions than before, for its sources leave them open: '
    else
        printf 'other versions than before, which cannot be had any more: '
    fi
    printf '%s' \
        "$(sed 's/ / is now /' "$place/otherwise" | paste -s -d , - | sed 's/,/, /g')"
}

# The installed distributions of an environment, and packages of conda, NAME==VERSION, sorted.
distributions() {
    {
        for found in "$1"/lib/python*/site-packages/*.dist-info; do
            [ -d "$found" ] || continue
            found=${found##*/}
            found=${found%.dist-info}
            printf '%s==%s\n' "${found%-*}" "${found##*-}"
        done
        # NAME-VERSION-BUILD.json; only names hold hyphens
        for found in "$1"/conda-meta/*-*-*.json; do
            [ -f "$found" ] || continue
            found=${found##*/}
            found=${found%-*}
            printf '%s==%s\n' "${found%-*}" "${found##*-}"
        done
    } | sort -u
}

added() {
    [ -f "$1/.rvstate/installed" ] || return 0
    distributions "$1" | comm -13 "$1/.rvstate/installed" - | sed 's/^/added /'
    distributions "$1" | comm -23 "$1/.rvstate/installed" - | sed 's/^/gone /'
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

# A job that starts while its environment is mended waits for that; where whoever mended it died in
# between its two renames, the whole one is put in its place.
arrive() {
    rv_lock "${1%/*}/lock" 600 || return 1
    adopt "$1"
}

# adopt GENERATION: finish what a killed mender left between its two renames.
adopt() {
    if ! [ -x "$1/bin/python" ] && [ -s "${1%/*}/.healing/${1##*/}/.rvstate-environment" ]; then exchange "$1"; fi
}

# exchange GENERATION: what was built aside takes its place.
exchange() {
    set -- "$1" "${1%/*}/.healing" "${1%/*}/.gone-${1##*/}"
    rm -rf "$3" || return 1
    if [ -e "$1" ]; then mv "$1" "$3" || return 1; fi
    mv "$2/${1##*/}" "$1" || return 1
    rm -rf "$3" "$2"
}

install_rest() {
    set -- --no-build-isolation --constraint "$place/pins"
    [ -e "$place/whole" ] && set -- --constraint "$place/pins"
    if [ "$(recipe internet)" = no ]; then
        install_fetched || return 1
        sed 's/==.*//' "$place/at-hand" 2>/dev/null | plain >"$place/later"
        [ -n "$(by_name "$place/later" <"$place/deferred")" ] || return 0
        # what has a path or an address lies in the cache
        set -- "$@" --offline
    fi
    install_declared "$@" && return 0
    # in other versions rather than not at all
    [ -s "$place/versions" ] && : >"$place/versions" && install_declared "$@"
}

# What the login node fetched, without a look at any index.
install_fetched() {
    [ -s "$place/at-hand" ] || return 0
    aloud "$uv" pip install --python "$generation/bin/python" --no-build-isolation --no-deps --no-index \
        --find-links "$place/fetched" --requirement "$place/at-hand"
}

# On a compute node, with the site's compiler loaded: the rest, then a stamp anew.
finish_main() {
    generation=$1
    place=$generation/.rvstate
    rv_lock "${generation%/*}/lock" 7200 || return 1
    if ! [ -s "$place/deferred" ] && ! [ -e "$place/whole" ]; then return 0; fi
    { read -r uv && read -r cache; } <"$place/tools" || return 1
    MAX_JOBS=$(nproc 2>/dev/null || echo 2)
    CMAKE_BUILD_PARALLEL_LEVEL=$MAX_JOBS
    names=$(paste -s -d ' ' - <"$place/deferred")
    printf 'rvstate: building %s on %s\n' "${names:-the environment}" "$(uname -n)" >&2
    prepare_install
    # nothing that runs in it already may change under it
    gently "$uv" pip freeze --python "$generation/bin/python" 2>/dev/null |
        grep '^[A-Za-z0-9._-]*==' >"$place/pins"
    { install_rest && { ! [ -e "$place/whole" ] || install_also; }; } ||
        rv_fail "what was left for the compute node could not be built" || return 1
    finish_layer || return 1
    cp "$place/deferred" "$place/deferred.was"
    : >"$place/deferred"
    rm -f "$place/whole"
    check || { mv -f "$place/deferred.was" "$place/deferred"; return 1; }
    list_installed && stamp && rm -f "$place/deferred" "$place/deferred.was"
}
