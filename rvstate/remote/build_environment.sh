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
# ARCHIVE`.  Progress comes on standard error.
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
    [ -s "$place/deferred" ] || [ -e "$place/whole" ] || rm -f "$place/deferred"
    check && list_installed && keep_tools
}

# What is needed to build it again or to finish it, where nobody says so.
keep_tools() {
    printf '%s\n%s\n%s\n' "$uv" "$cache" "$backup" >"$place/tools"
}

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

# install_declared OPTION...: everything that the sources declare but the deferred packages.
install_declared() {
    set -- "$uv" pip install --python "$generation/bin/python" "$@"
    if [ -s "$place/versions" ]; then set -- "$@" --constraint "$place/versions"; fi
    while IFS= read -r source; do
        case ${source##*/} in
            uv.lock)
                export_lock || return 1
                set -- "$@" --requirement "$place/locked.txt"
                ;;
            *)
                set -- "$@" --requirement "$source"
                case $source in
                    *.txt | *.in) ;;
                    *) while IFS= read -r extra; do set -- "$@" --extra "$extra"; done <"$place/extras" ;;
                esac
                ;;
        esac
    done <"$place/from"
    if ! grep -q '/*uv\.lock$' "$place/from"; then
        while IFS= read -r group; do set -- "$@" --group "$group"; done <"$place/groups"
        if [ -s "$place/overrides" ]; then set -- "$@" --override "$place/overrides"; fi
    fi
    (cd -- "$place/sources" && aloud "$@")
}

export_lock() {
    set -- "$uv" export --quiet --frozen --no-emit-project --no-editable --no-default-groups \
        --format requirements.txt --python "$generation/bin/python" --output-file "$place/locked.txt"
    while IFS= read -r extra; do set -- "$@" --extra "$extra"; done <"$place/extras"
    while IFS= read -r group; do set -- "$@" --group "$group"; done <"$place/groups"
    while IFS= read -r name; do set -- "$@" --no-emit-package "$name"; done <"$place/excluded"
    (cd -- "$place/sources" && aloud "$@") || rv_fail "uv.lock could not be read"
}

# prepare_install NAME...: the recipe as files, with these packages left out.
prepare_install() {
    recipe source >"$place/from"
    recipe extra >"$place/extras"
    recipe group >"$place/groups"
    : >"$place/overrides"
    : >"$place/excluded"
    for name; do
        # a marker that is never true takes a package out of the resolution
        printf '%s; sys_platform == "never"\n' "$name" >>"$place/overrides"
        printf '%s\n' "$name" >>"$place/excluded"
    done
    former "$@"
}

# former NAME...: the versions of the last build, but of these and of what is given free.  A lock
# says them by itself, and of what came from an address that address is kept.
former() {
    : >"$place/versions"
    [ -s "$place/installed-former" ] || return 0
    if grep -q -E '(^|/)(uv\.lock|pylock(\.[^./]+)?\.toml)$' "$place/from"; then return 0; fi
    touch "$place/free" "$place/origins-former"
    printf '%s\n' "$@" | cat - "$place/free" | plain >"$place/let-go"
    cut -d ' ' -f 1 "$place/origins-former" | cat - "$place/installed-former" | by_name "$place/let-go" |
        sort | uniq -u >"$place/versions"
    sed -n 's/^[^ ]* //p' "$place/origins-former" | grep ' @ git+' | by_name "$place/let-go" >>"$place/overrides"
}

# Names as all tools compare them.
plain() {
    tr 'A-Z_.' 'a-z--' | sed 's/--*/-/g'
}

# by_name FILE: of the lines on standard input, each NAME==... or `NAME @ ...`, those whose name is not in it.
by_name() {
    awk -v file="$1" '
        BEGIN { while ((getline name <file) > 0) skip[name] }
        {
            name = tolower($0)
            sub(/(==| @ ).*/, "", name)
            gsub(/[-_.]+/, "-", name)
            if (!(name in skip)) print
        }'
}

# A version that cannot be had any more is given free: the one that is named, else all.
give_free() {
    [ -s "$place/versions" ] || return 1
    # from the cache alone? an index may have dropped what was fetched once, or not be reached
    if [ -z "$offline" ]; then
        [ -z "$(unbuilt)" ] || return 1
        offline=--offline
        return 0
    fi
    offline=
    # as one line: it is broken to fit a terminal
    grep -q 'No solution found' "$place/failed" || return 1
    tr -s '\n ' ' ' <"$place/failed" | grep -o 'no version of [A-Za-z0-9._-]*==' |
        sed 's/.* //;s/==$//' | sort -u >"$place/free-now"
    if ! [ -s "$place/free-now" ]; then sed 's/==.*//' "$place/versions" >"$place/free-now"; fi
    sed 's/$/ cannot be had in its former version any more/' "$place/free-now" >&2
    cat "$place/free-now" >>"$place/free"
}

# What nothing asks for, pip before all, in its former version; then what became of all of them.
settle() {
    [ -s "$place/installed-former" ] || return 0
    distributions "$generation" >"$place/here"
    differing | sed 's/ .*//' >"$place/rest"
    while IFS= read -r one; do
        case $one in
            pip==* | setuptools==* | wheel==*)
                gently "$uv" pip install --quiet --no-deps --python "$generation/bin/python" "$one" >&2 2>&1 </dev/null ||
                    gently "$uv" pip install --quiet --offline --no-deps --python "$generation/bin/python" "$one" >&2 2>&1 </dev/null || :
                ;;
        esac
    done <"$place/rest"
    compare_versions
}

compare_versions() {
    [ -s "$place/installed-former" ] || return 0
    distributions "$generation" >"$place/here"
    differing >"$place/otherwise"
}

# NAME==VERSION of the last build, and behind it the version that is here.
differing() {
    awk -F == 'FILENAME == ARGV[1] { here[$1] = $2; next } ($1 in here) && here[$1] != $2 { print $0, here[$1] }' \
        "$place/here" "$place/installed-former"
}

# On the login node: what fails to be built is left for a compute node; any other failure is one.
install_here() {
    offline=
    mended=
    while :; do
        # shellcheck disable=SC2046 # names of packages
        prepare_install $(cat "$place/deferred")
        # shellcheck disable=SC2086 # an option or nothing
        install_declared $offline && break
        if [ -z "$offline" ]; then cp "$place/said" "$place/failed"; fi
        if mend_cache || give_free; then continue; fi
        # what is told is why the index did not do
        if [ -s "$place/failed" ]; then cp "$place/failed" "$place/said"; fi
        name=$(unbuilt)
        if [ -z "$name" ] || grep -q -x -F -e "$name" "$place/deferred" ||
            grep -q -E '(^|/)pylock(\.[^./]+)?\.toml$' "$place/from"; then
            why
            return 1
        fi
        printf '%s\n' "$name" >>"$place/deferred"
        printf '%s cannot be built here and is left for the job on a compute node\n' "$name" >&2
    done
    if grep -q 'falling back to full copy' "$place/said"; then
        printf 'note the cache and the environments are on different file systems, so every file is copied: more space, more time\n'
    fi
    respoiled && settle || return 1
    [ -s "$place/deferred" ] || return 0
    # without isolation a build finds its backend in the environment
    aloud "$uv" pip install --python "$generation/bin/python" setuptools wheel || return 1
    [ "$(recipe internet)" != no ] || fetch
}

# A purge that took single files of the cache: the package that uv could not link is fetched anew.
mend_cache() {
    name=$(sed -n 's/.*Failed to install: .*(\([A-Za-z0-9._-]*\)==.*/\1/p' "$place/said" | head -n 1)
    # ENOENT
    [ -n "$name" ] && grep -q 'os error 2)' "$place/said" || return 1
    case " $mended " in *" $name "*) return 1 ;; esac
    mended="$mended $name"
    clean_cache "$name"
}

clean_cache() {
    gently "$uv" cache clean --quiet --force "$@" >&2 2>&1 || gently "$uv" cache clean --quiet "$@" >&2
}

# uv's cache may have lost files to a purge, or share one that somebody edited by force: what has such
# a file is fetched anew.
respoiled() {
    find_spoiled || return 0
    set --
    for name in $spoiled; do set -- "$@" --reinstall-package "$name" --refresh-package "$name"; done
    printf 'note files of %s in the cache were changed or are missing, so they are fetched again\n' \
        "$(printf '%s\n' "$spoiled" | paste -s -d ' ' -)"
    # shellcheck disable=SC2086 # names of packages
    clean_cache $spoiled || return 1
    install_declared "$@" || return 1
    # what nothing asks for, pip before all
    find_spoiled || return 0
    distributions "$generation" >"$place/here"
    printf '%s\n' "$spoiled" | plain >"$place/spoiled"
    set -- "$uv" pip install --quiet --no-deps --reinstall --python "$generation/bin/python"
    by_name "$place/spoiled" <"$place/here" >"$place/fine"
    for one in $(comm -13 "$place/fine" "$place/here"); do set -- "$@" "$one"; done
    gently "$@" >&2 </dev/null
}

find_spoiled() {
    spoiled=$(gently "$generation/bin/python" "$place/check.py" spoiled) && [ -n "$spoiled" ]
}

# The package that failed while it was built; nothing for any other failure.
unbuilt() {
    grep -q -e 'build backend returned an error' -e 'Build backend failed' "$place/said" || return 0
    sed -n 's/.*Failed to \(download and \)\{0,1\}build `\([A-Za-z0-9._-]*\).*/\2/p' "$place/said" |
        head -n 1 | tr 'A-Z_' 'a-z-'
}

why() {
    if grep -q -i -e 'no space left' -e 'quota exceeded' "$place/said"; then
        rv_fail "the file system is full; make room, for example with rvstate prune"
    else
        rv_fail "the requirements could not be installed"
    fi
}

# Compute nodes reach no index: what they are to build lies in uv's cache or beside the environment,
# and what only that needs is installed here.
fetch() {
    plain <"$place/deferred" >"$place/later"
    prepare_install
    # all of it as it will be, in versions that fit each other
    if install_declared --dry-run --no-build-isolation; then
        sed -n 's/^ *+ \([A-Za-z0-9][A-Za-z0-9._-]*==[^ ]*\)$/\1/p' "$place/said" >"$place/resolved"
    else
        printf 'note what %s will need could not be found out here; name it in the requirements, for nodes reach no index\n' \
            "$(paste -s -d ' ' - <"$place/deferred")"
        cat "$place/deferred" >"$place/resolved"
    fi
    by_name "$place/later" <"$place/resolved" >"$place/needs"
    # shellcheck disable=SC2046 # names of packages
    prepare_install $(cat "$place/deferred")
    if [ -s "$place/needs" ]; then install_declared --requirement "$place/needs" || return 1; fi
    mkdir -p "$place/fetched"
    index_options >"$place/options"
    : >"$place/at-hand"
    grep -v -x -F -f "$place/needs" "$place/resolved" >"$place/to-fetch"
    while IFS= read -r one; do
        printf 'fetching %s for the compute node\n' "$one" >&2
        { cat "$place/options"; printf '%s\n' "$one"; } >"$place/wanted"
        (cd -- "$place/sources" && gently "$generation/bin/python" -m pip download --quiet --no-deps \
            --no-build-isolation --dest "$place/fetched" --requirement "$place/wanted" >&2 </dev/null) &&
            printf '%s\n' "$one" >>"$place/at-hand" ||
            printf 'note %s could not be fetched for the compute node\n' "$one"
    done <"$place/to-fetch"
}

# Where the requirements files say that packages come from, for pip.
index_options() {
    find "$place/sources" -type f \( -name '*.txt' -o -name '*.in' \) -exec grep -h -E \
        '^[[:space:]]*(-i|-f|--(index-url|extra-index-url|find-links|trusted-host|no-index|pre))([[:space:]=]|$)' {} +
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
    install_rest || rv_fail "what was left for the compute node could not be built" || return 1
    cp "$place/deferred" "$place/deferred.was"
    : >"$place/deferred"
    rm -f "$place/whole"
    check || { mv -f "$place/deferred.was" "$place/deferred"; return 1; }
    list_installed && stamp && rm -f "$place/deferred" "$place/deferred.was"
}
