#!/bin/sh
# How packages come into an environment: what its sources declare, in the versions of the last build,
# and what is done where that fails.  Travels in front of build_environment.sh.
# shellcheck shell=sh
# shellcheck disable=SC2154 # variables come from lib.sh and from what builds
# shellcheck disable=SC2015 # what stands last says what went wrong, wherever it did

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
    # what a layer has otherwise than its base (layer.sh)
    if [ -s "$place/lines" ] && ! [ -e "$place/whole" ]; then
        sed -n -e '/^-/d' -e 's/ --.*//' -e p "$place/lines" >>"$place/overrides"
        sed -n 's/^\([a-z0-9][a-z0-9-]*\).*/\1/p' "$place/lines" >>"$place/excluded"
    fi
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

# What the recipe adds to what is declared, from where that comes and in versions that fit it.
install_also() {
    [ -n "$(recipe also)" ] || return 0
    index_options >"$place/options"
    set -- "$uv" pip install --python "$generation/bin/python" --requirement "$place/options"
    if [ -s "$place/versions" ]; then set -- "$@" --constraint "$place/versions"; fi
    for name in $(recipe also); do set -- "$@" "$name"; done
    (cd -- "$place/sources" && aloud "$@") || rv_fail "$(recipe also | paste -s -d ' ' -) could not be installed"
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
    # shellcheck disable=SC2119 # among all
    find_spoiled || return 0
    set --
    for name in $spoiled; do set -- "$@" --reinstall-package "$name" --refresh-package "$name"; done
    printf 'note files of %s in the cache were changed or are missing, so they are fetched again\n' \
        "$(printf '%s\n' "$spoiled" | paste -s -d ' ' -)"
    # shellcheck disable=SC2086 # names of packages
    clean_cache $spoiled || return 1
    install_declared "$@" || return 1
    # what nothing asks for, pip before all
    # shellcheck disable=SC2119 # among all
    find_spoiled || return 0
    distributions "$generation" >"$place/here"
    printf '%s\n' "$spoiled" | plain >"$place/spoiled"
    set -- "$uv" pip install --quiet --no-deps --reinstall --python "$generation/bin/python"
    by_name "$place/spoiled" <"$place/here" >"$place/fine"
    for one in $(comm -13 "$place/fine" "$place/here"); do set -- "$@" "$one"; done
    gently "$@" >&2 </dev/null
}

# find_spoiled [NAME==VERSION]...: sets spoiled; among all where none is named.
# shellcheck disable=SC2120 # layer.sh names some
find_spoiled() {
    spoiled=$(gently "$generation/bin/python" "$place/check.py" spoiled "$@") && [ -n "$spoiled" ]
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
