#!/bin/sh
# Manifests: what a directory held when it was made, so that damage can be told from additions.
# Travels between lib.sh and the scripts that write or check one (rvstate/script.py).
#
# A manifest is sorted records, each ended by NUL: PATH//TYPE SIZE TARGET.  No path of find's holds
# two slashes in a row, so any name is safe.  TYPE: what find says of the entry and of what it leads
# to (ff, lf, ld, lN for a link that leads nowhere).  The last record is `//`: one without it was cut.
# Directories and bytecode are no part of it, and of rvstate's own files in the tree those alone that
# an environment was built from.
# shellcheck shell=sh

# rv_manifest DIRECTORY FILE: write the directory's manifest, at once or not at all; where FILE is
# `.rvstate/manifest` in it, `.rvstate/made` beside it says when (seconds since 1970), for dates of
# files are no witness on a file system with a purge.
rv_manifest() {
    rv_temp=$2.rvstate-tmp-$$
    # the last record only behind a walk that succeeded
    if { (cd -- "$1" && rv_entries) && printf '//\0'; } | sort -z >"$rv_temp" &&
        rv_whole "$rv_temp" && mv -f "$rv_temp" "$2"; then
        if [ "$2" = "$1/.rvstate/manifest" ]; then date +%s | rv_store "$1/.rvstate/made" 644; fi
        return
    fi
    rm -f "$rv_temp"
    rv_fail "the manifest of $1 could not be written; is its file system full?"
}

# rv_whole FILE: whether it is a manifest to its end.
rv_whole() {
    [ "$(tail -c 3 "$1" 2>/dev/null | tr '\000' .)" = //. ]
}

# rv_entries [MARK]: the records of the current directory, MARK before each type.
rv_entries() {
    case $(uname -s) in
        Linux)
            # what may not be entered is said, and not taken for gone
            find . \( -name __pycache__ -o -name '*.pyc' -o -path ./.rvstate-environment \
                -o -path './.rvstate/*' ! -path './.rvstate/sources*' ! -path ./.rvstate/recipe \
                ! -path ./.rvstate/check.py ! -path ./.rvstate/installed \) -prune \
                -o -type d ! \( -readable -executable \) -printf "%p//${1-}d? 0 \\0" -prune \
                -o ! -type d -printf "%p//${1-}%y%Y %s %l\\0"
            ;;
        *) rv_entries_slowly "${1-}" ;;
    esac
}

# The same where find has no -printf.
rv_entries_slowly() {
    # shellcheck disable=SC2016 # for the inner shell
    find . \( -name __pycache__ -o -name '*.pyc' -o -path ./.rvstate-environment \
        -o -path './.rvstate/*' ! -path './.rvstate/sources*' ! -path ./.rvstate/recipe \
        ! -path ./.rvstate/check.py ! -path ./.rvstate/installed \) -prune \
        -o ! -type d -exec sh -c 'mark=$0; for path; do
            target=
            if [ -L "$path" ]; then
                # the dot keeps line breaks at its end
                target=$(readlink "$path" && printf .)
                target=${target%??}
                size=${#target}
                if [ -d "$path" ]; then type=ld; elif [ -e "$path" ]; then type=lf; else type=lN; fi
            else
                size=$(wc -c <"$path")
                type=ff
            fi
            printf "%s//%s%s %s %s\0" "$path" "$mark" "$type" "$((size))" "$target"
        done' "$1" {} +
}

# rv_compare DIRECTORY FILE: what became of a tree since its manifest, one a line (a line break in a
# name as octal 1): `missing PATH`, `changed PATH` (its type, size or target; a link that leads
# nowhere any more), `added PATH`, `unreadable PATH` (nothing below it is known), or `torn` where the
# manifest itself is cut or gone.  Walks once and streams; writes nothing.  What pip or uv put in the
# place of something counts as added, where all of it is there.
rv_compare() {
    if ! rv_whole "$2"; then
        printf 'torn\n'
        return 0
    fi
    rv_worked=$(rv_find_worked "$1" "$2")
    if [ -z "$rv_worked" ]; then
        rv_differences "$1" "$2"
    else
        export rv_worked
        rv_expected "$1" "$2" | rv_differences "$1" /dev/fd/3 3<&0 </dev/null
    fi
}

# rv_find_worked DIRECTORY FILE: the lists of installed distributions (RECORD) that are not those of
# the manifest, in its own form: somebody has installed them since.
rv_find_worked() {
    {
        # one process for all; /dev/null is there where nothing else is
        (cd -- "$1" && wc -c lib/python*/site-packages/*.dist-info/RECORD /dev/null) 2>/dev/null |
            sed -n 's|^ *\([0-9]*\) \(lib/.*\)|./\2//ff \1 |p'
        printf '//\n'
        tr '\n\000' '\001\n' <"$2" | grep -a '\.dist-info/RECORD//'
    } | awk '
        $0 == "//" { kept = 1; next }
        !kept { found[$0]; next }
        { delete found[$0] }
        END { for (line in found) print line }'
}

# rv_expected DIRECTORY FILE: the manifest as it would be behind what was installed since ($rv_worked):
# what those lists name has the size that they say (type fF where it is new), and what they replaced
# is not asked for: other versions of the same distributions, and what no list names any more beside
# modules of theirs.
rv_expected() {
    tr '\n\000' '\001\n' <"$2" | (cd -- "$1" && awk '
        function plain(name) {
            sub(/-.*/, "", name)
            name = tolower(name)
            gsub(/[-_.]+/, "-", name)
            return name
        }
        BEGIN {
            count = split(ENVIRON["rv_worked"], lines, "\n")
            for (i = 1; i <= count; i++) worked[substr(lines[i], 1, index(lines[i], "//") - 1)] = lines[i]
        }
        FILENAME != "-" {
            if (FNR == 1) {
                record = "./" FILENAME
                folder = record
                sub(/\/RECORD$/, "", folder)
                site = folder
                sub(/\/[^\/]*$/, "", site)
                there[folder]
                mine = record in worked
                if (mine) names[plain(substr(folder, length(site) + 2))]
            }
            sub(/\r$/, "")
            # the last two of three fields hold no comma
            if (!match($0, /,[^,]*,[0-9]*$/)) next
            path = substr($0, 1, RSTART - 1)
            size = substr($0, RSTART + 1)
            sub(/^[^,]*,/, "", size)
            if (substr(path, 1, 1) == "\"") {
                path = substr(path, 2, length(path) - 2)
                gsub(/""/, "\"", path)
            }
            if (path ~ /^\// || path ~ /(^|\/)__pycache__\// || path ~ /\.pyc$/) next
            full = site "/" path
            while (full ~ /\/\.\.\//) sub(/\/[^\/]+\/\.\.\//, "/", full)
            listed[full]
            if (!mine) next
            if (size != "" || full == record) owned[full] = size
            if (path !~ /^\.\./ && path !~ /^[^\/]*\.dist-info\//) {
                sub(/[.\/].*/, "", path)
                tops[site "/" path]
            }
            next
        }
        $0 == "//" { print; next }
        {
            path = substr($0, 1, index($0, "//") - 1)
            if (path in worked) { print worked[path]; met[path]; next }
            if (path in owned) { print path "//ff " owned[path] " "; met[path]; next }
            if (path in listed || !match(path, /^\.\/lib\/python[^\/]*\/site-packages\//)) { print; next }
            rest = substr(path, RLENGTH + 1)
            if (rest ~ /^[^\/]*\.dist-info\//) {
                folder = rest
                sub(/\/.*/, "", folder)
                if (!((substr(path, 1, RLENGTH) folder) in there) && (plain(folder) in names)) next
            } else {
                sub(/[.\/].*/, "", rest)
                if ((substr(path, 1, RLENGTH) rest) in tops) next
            }
            print
        }
        END {
            for (path in worked) if (!(path in met)) { sub(/\/\/ff /, "//fF ", worked[path]); print worked[path] }
            for (path in owned) if (!(path in met) && !(path in worked)) print path "//fF " owned[path] " "
        }' lib/python*/site-packages/*.dist-info/RECORD -) | tr '\001\n' '\n\000' | sort -z
}

# rv_differences DIRECTORY FILE: as rv_compare, whose FILE is whole.
rv_differences() {
    # the tree's own records have a ~ before the type, so each comes behind its counterpart
    { cd -- "$1" && rv_entries '~'; } 2>/dev/null | sort -z | sort -z -m - "$2" |
        tr '\n\000' '\001\n' | awk '
        # what was there and has not been met again
        function gone() { if (path != "") missing[++count] = path; path = "" }
        $0 == "//" { next }
        {
            at = index($0, "//")
            name = substr($0, 1, at - 1)
            rest = substr($0, at + 2)
            if (substr(rest, 1, 1) != "~") {
                gone()
                if (substr(rest, 1, 2) != "d?") { path = name; was = rest }
                next
            }
            rest = substr(rest, 2)
            if (substr(rest, 1, 2) == "d?") {
                gone()
                closed[++doors] = name
                print "unreadable " name
                next
            }
            if (name != path) { gone(); print "added " name; next }
            path = ""
            # what was installed since, as its own list says
            if (substr(was, 2, 1) == "F") {
                print (substr(was, 1, 1) substr(was, 3) == substr(rest, 1, 1) substr(rest, 3) ? "added " : "changed ") name
                next
            }
            # a link that led nowhere may lead somewhere by now, or to another kind of thing
            if (substr(was, 1, 1) != substr(rest, 1, 1) || substr(was, 3) != substr(rest, 3) ||
                (substr(rest, 2, 1) == "N" && substr(was, 2, 1) != "N")) print "changed " name
        }
        END {
            gone()
            for (i = 1; i <= count; i++) {
                for (j = 1; j <= doors; j++) if (index(missing[i], closed[j] "/") == 1) break
                if (j > doors) print "missing " missing[i]
            }
        }'
}

# rv_renew DIRECTORY: give files that an installer left with an old date today's: they are new here,
# and a purge goes by dates.  Links into an installer's cache carry the date of the first download.
rv_renew() {
    find "$1" ! -type d \( -mtime +6 -o -atime +6 \) -exec touch -c -h {} +
}

# rv_keep_beside GENERATION PATH: what the generation was built from, and came to, beside PATH.
rv_keep_beside() {
    set -- "$1" "${2%/*}/.${2##*/}.kept"
    if ! { touch "$1/.rvstate/origins" &&
        tar -C "$1/.rvstate" -cf - recipe sources check.py tools installed origins | rv_store "$2" 600 &&
        tar -tf "$2" installed >/dev/null 2>&1; }; then
        rv_fail "what $1 was built from could not be kept beside it"
    fi
}
