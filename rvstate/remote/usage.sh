#!/bin/sh
# Where bytes and inodes are, of what rvstate keeps: one walk.  Only reads.
#   main SCRATCH_TEMPLATE HOME
# Says for each place `BYTES INODES KIND PATH`, PATH relative to scratch: code (PROJECT/BRANCH: sent
# files and snapshots), environments (PROJECT/BRANCH), runs, logs, outputs, checkpoints, rvstate, cache
# (NAME).  A file with several names counts once, where it is met first, in that order; links are not
# followed.  Last `unreadable N`: how many directories could not be read.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    cd -- "$rv_scratch" 2>/dev/null || rv_fail "there is no directory $rv_scratch" || return 1
    set --
    for place in rv-workspaces/*/* .rv/envs/*/.generations/* .rv/runs .rv/logs .rv/outputs \
        .rv/checkpoints .rv/lib .rv/tools .rv/process .rv/env .rv/originals .cache/*; do
        if [ -d "$place" ] && ! [ -L "$place" ]; then set -- "$@" "$place"; fi
    done
    closed=0
    if [ $# -gt 0 ]; then
        rv_section places
        # what find complains of comes by itself, for in one pipe it would cut lines in two
        {
            closed=$({ find "$@" -printf '%D:%i %n %b %y %H\n' | sum >&3; } 2>&1 >/dev/null | grep -c .)
        } 3>&1
    fi
    printf 'unreadable %s\n' "$((closed))"
}

sum() {
    awk '
        # a directory counts its subdirectories as names of its own
        $4 != "d" && $2 > 1 { if ($1 in seen) next; seen[$1] }
        {
            place = $5
            for (i = 6; i <= NF; i++) place = place " " $i
            bytes[place] += $3 * 512
            inodes[place]++
        }
        END { for (place in bytes) printf "%.0f %d %s\n", bytes[place], inodes[place], place }'
}
