#!/bin/sh
# Find what is kept of the newest run of a name; only reads.
#   main SCRATCH_TEMPLATE HOME RUNS WANTED NAME
# RUNS: the directory of runs, perhaps below /{scratch}.  WANTED: a job id, a run id or a name.  NAME:
# how a receipt says that name.  Sections: job, receipt; none where no run is called so.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    rv_real "$3"
    cd -- "$rv_path" 2>/dev/null || return 0
    # run ids are ours: digits, letters, dashes; their order is that of their dates
    found=$({
        case $4 in
            */* | .*) ;;
            *) if [ -f "$4/receipt.json" ]; then printf '%s\n' "$4"; fi ;;
        esac
        # an array may have several jobs, with commas
        case $4 in
            '' | *[!0-9]*) ;;
            *) find . -path './*/*' -prune -name job -exec grep -l -E -e "(^|,)$4(,|\$)" {} + ;;
        esac
        find . -path './*/*' -prune -name receipt.json -exec grep -l -F -e "$5" {} +
    } | sed -e 's,^\./,,' -e 's,/.*,,' | sort | tail -n 1)
    [ -n "$found" ] && [ -f "$found/receipt.json" ] || return 0
    rv_section job
    cat "$found/job" 2>/dev/null
    rv_section receipt
    cat "$found/receipt.json"
}
