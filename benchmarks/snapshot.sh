#!/bin/sh
# Time snapshots against `cp -al`, behind lib.sh and submit.sh of rvstate/remote.
#   sh FILE ROOT ROUNDS
# ROOT: a workspace from which a large snapshot was taken.  Says two lines: the seconds of each
# `cp -al` of its tree, and those of each snapshot with everything that is checked for it.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # variables of and for the scripts in front

root=$1
rounds=$2
state=$(cat "$root/manifest")
how="link"
run=$(mktemp -d)
copies=
snapshots=

now() {
    date +%s%N
}

# since TIME: seconds since then
since() {
    awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.4f ", (b - a) / 1e9 }'
}

while [ "$rounds" -gt 0 ]; do
    rounds=$((rounds - 1))
    begun=$(now)
    cp -al "$root/pristine" "$root/bench-copy" || exit 1
    copies=$copies$(since "$begun")
    snapshot=$root/snapshots/bench
    begun=$(now)
    copy_ahead
    { take_copy || unchanged; } && take_snapshot || exit 1
    snapshots=$snapshots$(since "$begun")
    [ "$(find "$snapshot" -type f | wc -l)" = "$(find "$root/bench-copy" -type f | wc -l)" ] || exit 1
    rm -rf "$snapshot" "$root/snapshots/.bench.manifest" "$root/bench-copy"
done
rm -rf "$run"
printf '%s\n%s\n' "$copies" "$snapshots"
