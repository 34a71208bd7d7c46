#!/bin/sh
# The kept copy of an environment, in a place that no purge reaches: $backup/PROJECT/BRANCH/NAME.tar
# holds the whole generation NAME, and beside it NAME.tar.rvstate says that the archive is ours:
#   rvstate environment
#   at PATH          of the generation; it works nowhere else
#   sha256 DIGEST    of the archive
#   made SECONDS     since 1970
# Travels in front of build_environment.sh, and not to jobs: they never touch a kept copy.
# Two are kept of a branch.  What is to be told of it stands in GENERATION/.rvstate/copy, as
# `note TEXT`, `unpacked ARCHIVE` and `kept BYTES ARCHIVE`.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, the rest from what builds

# copy_of PATH: set copies and copy, where the copies of a generation's branch lie, and its own.
copy_of() {
    copies=${1%/*}
    copy=${copies##*/}
    copies=${copies%/.generations/*}
    copies=$backup/${copies##*/}/$copy
    copy=$copies/${1##*/}.tar
}

# copy_says KEY ARCHIVE: what the mark beside an archive says; nothing where it is not ours.
copy_says() {
    sed -n -e '1{' -e '/^rvstate environment$/!q' -e '}' -e "s/^$1 //p" "$2.rvstate" 2>/dev/null
}

# copy_safe ARCHIVE: whether nobody else can have written it.
copy_safe() {
    [ "$(find "$1" "$1.rvstate" -prune -type f -user "$(id -u)" ! -perm -020 ! -perm -002 2>/dev/null | wc -l)" -eq 2 ]
}

# unpack_copy AT: make $generation from the kept copy of the generation AT, without the stamp, and
# check it as a build is checked; 1 where there is none that does.
unpack_copy() {
    copy_told=
    copy_used=
    [ -n "$backup" ] || return 1
    has_copy "$1" || return 1
    if ! copy_safe "$copy"; then
        copy_told="the kept copy $copy was not used, for others may write to it"
        return 1
    fi
    printf 'unpacking the copy in %s\n' "$copies" >&2
    if [ "$(rv_digest "$copy")" != "$(copy_says sha256 "$copy")" ]; then
        copy_told="the kept copy $copy is damaged and was not used"
        return 1
    fi
    # with today's dates, for a purge goes by them
    if rm -rf "$generation" && mkdir -p "$generation" && nice tar -C "$generation" -xpmof "$copy" >&2 &&
        refresh_copy && check; then
        copy_used=yes
        return 0
    fi
    rm -rf "$generation"
    copy_told="the kept copy $copy is whole and does not work any more, so it was not used"
    return 1
}

# What this build knows better than the one that the copy is of.
refresh_copy() {
    place=$generation/.rvstate
    rm -f "$place/otherwise" "$place/lost" "$place/extra" "$place/verified" "$place/added"
    cp "$inputs/recipe" "$inputs/check.py" "$place/" && keep_tools || return 1
    if [ -e "$inputs/extra" ]; then cp "$inputs/extra" "$place/" || return 1; fi
    # a Python that uv had brought lay on scratch as well
    if ! [ -x "$generation/bin/python" ] && [ -s "$generation/pyvenv.cfg" ]; then
        gently "$uv" python install --quiet "$(sed -n 's/^version_info *= *//p' "$generation/pyvenv.cfg")" >&2
    fi
}

# has_copy AT: whether a copy of that generation is kept.
has_copy() {
    copy_of "$1"
    [ -f "$copy" ] && [ "$(copy_says at "$copy")" = "$1" ]
}

# keep_copy DIRECTORY AT: keep a copy of the generation in DIRECTORY, which lies at AT or will.
# Whatever becomes of it, what was built stays built.
keep_copy() {
    [ -n "$backup" ] || return 0
    copy_of "$2"
    {
        if [ -n "${copy_told-}" ]; then printf 'note %s\n' "$copy_told"; fi
        if [ -n "${copy_used-}" ]; then printf 'unpacked %s\n' "$copy"; fi
        # it holds what was added by hand in the meantime, too?
        if [ -n "${copy_used-}" ] && ! [ -s "$1/.rvstate/extra" ]; then
            :
        elif printf 'keeping a copy in %s\n' "$copies" >&2 &&
            copy_size=$(write_copy "$1" "$2" 2>"$1/.rvstate/copy.said"); then
            printf 'kept %s %s\n' "$copy_size" "$copy"
            remove_old_copies "$2"
        else
            printf 'note no copy of the environment was kept in %s (%s); ' "$copies" \
                "$(sed 's/^rvstate: //' "$1/.rvstate/copy.said" | tail -n 1)"
            printf 'make room there, or set backup in [environment] to a directory that you may write to; the next build tries again\n'
        fi
    } >"$1/.rvstate/copy.new"
    mv -f "$1/.rvstate/copy.new" "$1/.rvstate/copy"
    rm -f "$1/.rvstate/copy.said" "$1/.rvstate/copy.torn"
}

# write_copy DIRECTORY AT: says how many bytes it has.
write_copy() {
    umask 077
    mkdir -p "$copies" || return 1
    case $(cd -P -- "$copies" && pwd)/ in
        "$(cd -P -- "${2%%/.rv/envs/*}" && pwd)"/*) rv_fail "it lies on scratch, which a purge empties" || return 1 ;;
    esac
    if { [ -e "$copy" ] || [ -e "$copy.rvstate" ]; } && [ "$(copy_says at "$copy")" != "$2" ]; then
        rv_fail "$copy is no copy of this environment; move it away" || return 1
    fi
    # what killed builds left
    find "$copies" -type f -name '*.tar.rvstate-tmp-*' -mmin +60 -exec rm -f {} +
    copy_half=$copy.rvstate-tmp-$$
    trap 'rm -f "$copy_half"' EXIT
    # the digest of what tar said, and not of what a full disk has of it; bytecode names dates of files
    copy_digest=$({ nice tar -C "$1" --exclude=__pycache__ --exclude=./.rvstate-environment \
        --exclude='./.rvstate/copy*' -cf - . || : >"$1/.rvstate/copy.torn"; } | tee "$copy_half" | rv_sha256 -)
    copy_digest=${copy_digest%% *}
    [ ! -e "$1/.rvstate/copy.torn" ] && [ "$(rv_digest "$copy_half")" = "$copy_digest" ] || return 1
    # the mark first: an archive in the place of a damaged one is never without it
    printf 'rvstate environment\nat %s\nsha256 %s\nmade %s\n' "$2" "$copy_digest" "$(date +%s)" |
        rv_store "$copy.rvstate" 600 && mv -f "$copy_half" "$copy" && wc -c <"$copy" | tr -d ' '
}

# remove_old_copies AT: beside the copy of AT the newest of its branch stays.
remove_old_copies() {
    for one in "$copies"/*.tar.rvstate; do
        name=${one##*/}
        name=${name%.tar.rvstate}
        case $name in *[!0-9a-z]* | "${1##*/}") continue ;; esac
        [ "$(copy_says at "$copies/$name.tar")" = "${1%/*}/$name" ] || continue
        made=$(copy_says made "$copies/$name.tar")
        case $made in '' | *[!0-9]*) ;; *) printf '%s %s\n' "$made" "$name" ;; esac
    done | sort -rn | tail -n +2 | while read -r _ name; do
        rm -f "$copies/$name.tar" "$copies/$name.tar.rvstate"
    done
}
