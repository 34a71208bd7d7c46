#!/bin/sh
# What files and directories hold, as digests; a file is read again only where its size, date or inode
# is another than when it was read last.
# Travels between lib.sh and stages.sh, and with the steps of a stage's job (stage.sh).
#
# A table is lines `DIGEST SIZE MTIME INODE//PATH//BELOW`: PATH as it was asked for, BELOW the file in
# it where that is a directory.  No path of find's holds two slashes in a row, and a line break in a
# name is octal 1, so any name is safe.
# shellcheck shell=sh

# rv_path_digests BASE WORK PATH...: a line `DIGEST PATH` for each path, `- PATH` where there is none.
# BASE: where relative paths begin.  WORK: a directory for this alone, on BASE's file system, empty but
# that `known` may hold tables; `table` is the new one behind it.  1 where something could not be
# read, or changed meanwhile.
rv_path_digests() {
    rv_work=$2
    if ! (cd -- "$1" && shift 2 && rv_all_digests "$@"); then
        rv_fail "the digests in $1 could not be taken; is everything readable, and does nothing write there?"
    fi
}

rv_all_digests() {
    : >"$rv_work/table" && : >>"$rv_work/known" || return 1
    rv_left=$#
    while [ "$rv_left" -gt 0 ]; do
        rv_left=$((rv_left - 1))
        case $1 in /*) rv_at=$1 ;; *) rv_at=./$1 ;; esac
        if [ -e "$rv_at" ]; then set -- "$@" "$rv_at"; else printf -- '- %s\n' "$1"; fi
        shift
    done
    [ $# -gt 0 ] || return 0
    rv_list_files "$@" >"$rv_work/found" && tr '\n\000' '\001\n' <"$rv_work/found" >"$rv_work/list" &&
        rv_look_up && rv_read_rest && rv_keep_table && rv_sum_up "$@"
}

# rv_list_files PATH...: SIZE MTIME INODE//PATH//BELOW of each file, ended by NUL; through links, as a
# program reads them.  A link that leads nowhere is `broken`, pipes and sockets are no files.
rv_list_files() {
    case $(uname -s) in
        Linux)
            find -L "$@" \( -type f -printf '%s %T@ %i//%H//%P\0' \) -o \( -type l -printf 'broken//%H//%P\0' \)
            ;;
        *) rv_list_slowly "$@" ;;
    esac
}

# The same where find has no -printf: without dates, so that all of it is read each time.
rv_list_slowly() {
    for rv_at; do
        # shellcheck disable=SC2016 # for the inner shell
        find -L "$rv_at" \( -type f -o -type l \) -exec sh -c 'head=$1; shift; for file; do
            below=${file#"$head"}
            if [ -e "$file" ]; then printf "?//"; else printf "broken//"; fi
            printf "%s//%s\0" "$head" "${below#/}"
        done' sh "$rv_at" {} + || return 1
    done
}

# Put the known digest before each line of the list, or a dash.
rv_look_up() {
    { cat "$rv_work/known" && printf '\n' && cat "$rv_work/list"; } | awk '
        !known && $0 == "" { known = 1; next }
        !known { digest[substr($0, 66)] = substr($0, 1, 64); next }
        $0 in digest { print digest[$0] " " $0; next }
        /^broken/ { printf "%064d %s\n", 0, $0; next }
        { print "- " $0 }' >"$rv_work/half"
}

# Read what nobody knows: a digest for each line with a dash, in its place.
rv_read_rest() {
    sed -n 's,^- [^/]*//,,p' "$rv_work/half" | sed -e 's,//$,,' -e 's,//,/,' |
        tr '\001\n' '\n\000' >"$rv_work/unread"
    if ! [ -s "$rv_work/unread" ]; then
        mv "$rv_work/half" "$rv_work/all"
        return
    fi
    if command -v sha256sum >/dev/null 2>&1; then
        xargs -0 sha256sum -- <"$rv_work/unread" >"$rv_work/read"
    else
        xargs -0 shasum -a 256 -- <"$rv_work/unread" >"$rv_work/read"
    fi || return 1
    # a name that had to be escaped is marked by a backslash in front
    sed -e 's/^\\//' -e 's/ .*//' "$rv_work/read" >"$rv_work/digests"
    [ "$(wc -l <"$rv_work/digests")" = "$(grep -a -c '^- ' "$rv_work/half")" ] || return 1
    { cat "$rv_work/digests" && printf '\n' && cat "$rv_work/half"; } | awk '
        !read && $0 == "" { read = 1; next }
        !read { digest[++count] = $0; next }
        /^- / { print digest[++used] substr($0, 2); next }
        { print }' >"$rv_work/all"
}

# What is remembered: no file that was written so lately that it may be written once more with the
# same date.
rv_keep_table() {
    rv_now=$(find "$rv_work/table" -printf '%T@' 2>/dev/null) || return 0
    awk -v now="$rv_now" '$3 ~ /^[0-9.]+$/ && $3 + 2 < now + 0' "$rv_work/all" >"$rv_work/.table" &&
        mv "$rv_work/.table" "$rv_work/table"
}

# rv_sum_up PATH...: the digest of each path: a file's own, a directory's over names and digests.
rv_sum_up() {
    mkdir "$rv_work/sums" || return 1
    { printf '%s\n' "$@" && printf '\n' && cat "$rv_work/all"; } | awk -v sums="$rv_work/sums/" '
        !listed && $0 == "" { listed = 1; next }
        !listed { number[$0] = ++count; next }
        {
            rest = substr($0, 66)
            rest = substr(rest, index(rest, "//") + 2)
            # the path itself may begin with a slash
            at = index(rest, "//")
            path = substr(rest, 1, at - 1)
            below = substr(rest, at + 2)
            file = sums number[path]
            if (file != last) { if (last != "") close(last); last = file }
            print (below == "" ? "file " : "in ") substr($0, 1, 64) " " below >>file
        }' || return 1
    rv_number=0
    for rv_at; do
        rv_number=$((rv_number + 1))
        rv_file=$rv_work/sums/$rv_number
        if [ ! -e "$rv_file" ]; then : >"$rv_file"; fi
        rv_line=
        if IFS=' ' read -r rv_kind rv_line <"$rv_file" && [ "$rv_kind" = file ]; then
            rv_line=${rv_line%% *}
        else
            sort "$rv_file" >"$rv_file.sorted" || return 1
            rv_line=$(rv_digest "$rv_file.sorted")
        fi
        [ ${#rv_line} = 64 ] || return 1
        printf '%s %s\n' "$rv_line" "${rv_at#./}"
    done
}
