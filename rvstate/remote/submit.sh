#!/bin/sh
# Take the snapshot, keep the run's files, submit.  Once begun it finishes, connection or not.
#   main LOCK SECONDS ROOT STATE SNAPSHOT HOW KEEP_AFTER RUN_DIR SCRIPT RECEIPT ENVIRONMENT QUEUE HISTORY PARTS SUBMITTER...
# STATE: what ROOT/manifest must say, or - where no snapshot is to be taken.  HOW: copy, or link for a
# large tree.  KEEP_AFTER: a date, YYYYmmdd-HHMMSS and in seconds since 1970; snapshots of then or before
# may go (retention.py has the rule).  SCRIPT and RECEIPT are in the escapes of printf's %b.
# ENVIRONMENT: the generation that the job needs, or empty.  QUEUE and HISTORY: command lines that list the user's
# jobs, one a line, the id first and the run's id somewhere.  PARTS: empty, or for an array that takes
# several jobs a line `OFFSET ARRAY` for each: the argument of the batch script, and --array.
# SUBMITTER: the words before the batch script, `sbatch ...`.  The payload is empty, or a tar archive: writable, a list of paths (./PATH,
# each ended by NUL) that get copies of their own, and package/..., kept with the run; comment, the user's
# words in the comment of each of several jobs of an array.
# A run that was submitted already is only told its job id: asking again is safe.
# Says `submitted JOB`, `found JOB`, `stale`, or `unbuilt` where the generation is not whole; before it `twin JOB` for an active job of that name,
# behind it `untold WHY` where no job behind this one will tell how it ended.
# shellcheck shell=sh
# shellcheck disable=SC2016 # what xargs runs is expanded there
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    # the laptop may go away: no signal of its going ends what was begun
    trap '' HUP PIPE
    root=$3
    state=$4
    snapshot=$5
    how=$6
    keep_after=$7
    run=$8
    script=$9
    lock=$1
    patience=$2
    shift 9
    receipt=$1
    environment=$2
    queue=$3
    history=$4
    parts=$5
    shift 5
    known && return 0
    (umask 077 && mkdir -p "$root" "$run") || return 1
    rv_lock "$lock" "$patience" || return 1
    trap '' HUP
    # shellcheck disable=SC2034 # for the command lines that are given
    rv_user=$(id -un)
    # another one of us may have held the lock for this very run
    known && return 0
    recover || return 1
    [ -z "$job" ] || return 0
    # the queue is asked while the snapshot is taken
    eval "$queue" >"$run/queue" 2>/dev/null &
    asking=$!
    if [ "$state" != - ] && [ -d "$snapshot" ]; then
        # it is whole, for it was put in place so: an earlier attempt's, or the one of the run that
        # this run repeats, which must keep it then
        payload || rv_fail "the run's own files did not arrive whole" || return 1
        rm -f "$run/writable"
        first=$(printf '%s' "$snapshot" | sed 's/.*-\([0-9]\{8\}-[0-9]\{6\}-[0-9a-f]\{8\}\)$/\1/')
        if [ "$first" != "${run##*/}" ] && [ -d "${run%/*}/$first" ]; then : >"${run%/*}/$first/keep"; fi
        keep_files || return 1
    elif [ "$state" != - ]; then
        copy_ahead
        if ! payload; then
            drop_copy
            rv_fail "the run's own files did not arrive whole" || return 1
        fi
        take_copy || unchanged || stale || return 0
        keep_files &
        keeping=$!
        if ! take_snapshot; then
            if [ -e "$run/torn" ]; then
                wait "$keeping"
                stale || return 0
            fi
            wait "$keeping"
            rv_fail "the snapshot could not be taken (is scratch full?)" || return 1
        fi
        wait "$keeping" || return 1
    else
        payload || rv_fail "the run's own files did not arrive whole" || return 1
        keep_files || return 1
    fi
    if wait "$asking"; then asked=yes; else asked=no; fi
    # somebody may have removed it since it was chosen.  The receipt names it by now, and a removal
    # looks at receipts once more when it has taken the stamp (prune.sh): one of the two sees the other
    if [ -n "$environment" ] && ! [ -s "$environment/.rvstate-environment" ]; then
        printf 'unbuilt\n'
        return 0
    fi
    twins
    submit "$@" || return 1
    if [ "$asked" = yes ]; then prune; fi
    rm -f "$run/queue"
    return 0
}

keep_files() {
    # in the background, too: the lock is not this one's to give back
    (trap - EXIT
        printf '%b' "$script" | rv_store "$run/job.sh" 700 &&
            printf '%b' "$receipt" | rv_store "$run/receipt.json" 600)
}

known() {
    [ -s "$run/job" ] || return 1
    printf 'found %s\n' "$(cat "$run/job")"
}

# An earlier attempt got as far as sbatch and was never heard of again: look for its job before
# another is submitted; sets job, empty where there is none.  Parts are looked up one by one.
recover() {
    job=''
    [ -f "$run/intent" ] || return 0
    listed=$(eval "$queue") ||
        rv_fail "an earlier attempt may have submitted this run, and the scheduler does not say; try again" ||
        return 1
    # accounting may be absent at a site; the queue remembers some minutes by itself
    past=$(eval "$history" 2>/dev/null)
    [ -z "$parts" ] || return 0
    look_up "${run##*/}"
    [ -n "$job" ] || return 0
    if [ -f "$run/choices" ]; then job=$(printf '%s\n' "$found" | sort -nu | paste -s -d , -); fi
    record
    printf 'found %s\n' "$job"
}

# look_up TOKEN: the job that has it, in what recover has read, and all of those; TOKEN.1 is not
# TOKEN.10.
look_up() {
    found=$(printf '%s\n%s\n' "${listed:-}" "${past:-}" | grep -E -e "$(printf '%s' "$1" | sed 's/\./\\./g')([^0-9]|\$)" |
        sed -n 's/^\([0-9][0-9]*\).*/\1/p')
    job=$(printf '%s\n' "$found" | tail -n 1)
}

# record: keep which job it is.  Of several jobs of which one runs, the one that has begun has done
# so itself, and that stands (job.sh).
record() {
    if ! [ -f "$run/choices" ]; then
        printf '%s\n' "$job" | rv_store "$run/job" 600
    else
        printf '%s\n' "$job" | rv_store "$run/copies" 600
        rv_store_first "$run"
    fi
}

submit() {
    if [ -e "$run/cancelled" ]; then rv_fail "this run was cancelled" || return 1; fi
    if [ -n "$parts" ]; then
        submit_parts "$@" || return 1
    elif [ -f "$run/choices" ]; then
        submit_choices "$@" || return 1
    else
        date +%s | rv_store "$run/intent" 600 || return 1
        ask_sbatch "$@" "$run/job.sh" || return 1
    fi
    record
    printf 'submitted %s\n' "$job"
    follow "$@"
}

# ask_sbatch WORDS...: sets job; 1 where there is none, with the scheduler's own words.
ask_sbatch() {
    answer=$(rv_bare "$@" </dev/null 2>"$run/submit.err")
    status=$?
    # --parsable says ID or ID;CLUSTER, after whatever the site's plugins say
    job=$(printf '%s\n' "$answer" | sed -n 's/^\([0-9][0-9]*\)\(;.*\)*$/\1/p' | tail -n 1)
    if [ "$status" -eq 0 ] && [ -n "$job" ]; then return 0; fi
    # a refusal is an answer; silence is not, and keeps the intent
    if [ "$status" -ne 0 ] && ! grep -q -i -e 'timed out' -e 'communication' "$run/submit.err"; then
        rm -f "$run/intent"
    fi
    cat "$run/submit.err" >&2
    return 1
}

# The jobs of a long array, each with a token of its own, RUN.1 and so on; job becomes all of them
# with commas.  Where one is refused, those before it are ended: an array is submitted whole or not
# at all.  With a bound on how many run at once they follow one another.
submit_parts() {
    jobs=''
    number=0
    words=$(cat "$run/comment" 2>/dev/null)
    # its own standard input is the payload's
    while read -r offset array <&3; do
        number=$((number + 1))
        job=$(cat "$run/part.$number" 2>/dev/null)
        if [ -z "$job" ] && [ -f "$run/intent" ]; then look_up "${run##*/}.$number"; fi
        if [ -z "$job" ]; then
            date +%s | rv_store "$run/intent" 600 || return 1
            case $array in
                *%*) before=${jobs:+--dependency=afterany:${jobs##*,}} ;;
                *) before='' ;;
            esac
            if ! ask_sbatch "$@" --array="$array" \
                --comment="rvstate:${run##*/}.$number${words:+ $words}" \
                ${before:+"$before"} "$run/job.sh" "$offset"; then
                if [ -n "$jobs" ] && ! [ -f "$run/intent" ]; then
                    # shellcheck disable=SC2046 # their numbers
                    scancel $(printf '%s' "$jobs" | tr , ' ') && rm -f "$run"/part.*
                fi
                return 1
            fi
        fi
        printf '%s\n' "$job" | rv_store "$run/part.$number" 600 || return 1
        jobs=${jobs:+$jobs,}$job
    done 3<<EOT
$parts
EOT
    job=$jobs
}

# Jobs that ask for different things, a line of $run/choices each: the first that starts claims the
# run and ends the others, which it finds in $run/copies (job.sh).  One that has started meanwhile
# may have looked there too early, so this looks at the claim behind each.  What the scheduler does
# not take is told; it is a failure only where it takes none.  job becomes all of them with commas.
submit_choices() {
    date +%s | rv_store "$run/intent" 600 || return 1
    jobs=''
    while IFS= read -r words <&3; do
        if [ -e "$run/claim" ]; then break; fi
        if eval "ask_sbatch \"\$@\" $words \"\$run/job.sh\""; then
            jobs=${jobs:+$jobs,}$job
            printf '%s\n' "$jobs" | rv_store "$run/copies" 600 || return 1
        else
            printf 'note Slurm did not take the job with %s: %s\n' "$words" "$(tr '\n' ' ' <"$run/submit.err")"
            # it may be there all the same, and is to be looked for
            if [ -n "$jobs" ]; then date +%s | rv_store "$run/intent" 600 || return 1; fi
        fi
    done 3<"$run/choices"
    if [ -z "$jobs" ]; then return 1; fi
    job=$jobs
    owner=$(cat "$run/claim" 2>/dev/null)
    if [ -n "$owner" ]; then
        others=$(printf '%s\n' "$jobs" | tr , '\n' | grep -v -x -F -e "$owner")
        # shellcheck disable=SC2086 # their numbers
        if [ -n "$others" ]; then scancel $others; fi
    fi
    return 0
}

# The smallest job behind this one tells how it ended; without it the next `rvstate ps` does.  It
# names no run, so that nobody who looks for this run's job finds it.
follow() {
    if [ ! -f "$run/notify/after.sh" ] || [ "${1##*/}" != sbatch ]; then return 0; fi
    after=$(rv_bare "$@" --dependency="afterany:$(printf '%s' "$job" | tr , :)" <"$run/notify/after.sh" 2>&1) ||
        printf 'untold %s\n' "$(printf '%s' "$after" | tr '\n' ' ')"
    return 0
}

# Active jobs of the same name share the directory of checkpoints.
twins() {
    name=${snapshot##*/}
    name=${name%-????????-??????-*}
    [ -n "$name" ] || return 0
    # the name ends a line of the queue
    # a colon of it is an underscore in the snapshot's; the state is where prune looks for it
    awk -F '[\037 ]' -v name="$name" '$2 ~ /^(PENDING|RUNNING)$/ || $3 ~ /^(PENDING|RUNNING)$/ {
            line = $0; sub(/[^A-Za-z0-9._-]+$/, "", line); gsub(/:/, "_", line)
            at = length(line) - length(name)
            if (substr(line, at + 1) == name && substr(line, at, 1) !~ /[A-Za-z0-9._-]/) print "twin " $0 + 0 }' \
        "$run/queue" 2>/dev/null
}

# The code must be sent again; the manifest's date goes on telling what was changed over here.
stale() {
    rm -f "$run/torn"
    if [ -f "$root/manifest" ]; then mv -f "$root/manifest" "$root/manifest.old"; fi
    printf 'stale\n'
    return 1
}

# Whether the code is what the manifest says: nobody has changed one of its files by hand, or put
# an older one in its place, or a link where a directory was.
unchanged() {
    [ "$(cat "$root/manifest" 2>/dev/null)" = "$state" ] && [ -f "$root/files" ] || return 1
    (cd "$root/code" && find . \( -type f -o -type l \) \( -newer ../manifest -o -cnewer ../manifest \) -print0) |
        lines >"$run/newer"
    same=yes
    if [ -s "$run/newer" ] && lines <"$root/files" | grep -a -q -x -F -f "$run/newer"; then same=no; fi
    # a link that was not sent may stand where a directory was; the links are the patterns, for they
    # are few, and to look for one of 20,000 names takes as long as the snapshot
    (cd "$root/code" && find . -type l -print0) | lines >"$run/links"
    if [ -s "$run/links" ]; then
        sent=$(lines <"$root/files" | grep -a -c -x -F -f "$run/links")
        if [ "$sent" != "$(($(wc -l <"$run/links")))" ] && ! straight; then same=no; fi
    fi
    rm -f "$run/newer" "$run/links"
    [ "$same" = yes ]
}

# Whether no directory above a sent file is a link.
straight() {
    (cd "$root/code" && xargs -0 sh -c 'last=
    for file; do
        above=${file%/*}
        if [ "$above" = "$last" ]; then continue; fi
        last=$above
        while [ "$above" != . ]; do
            if [ -L "$above" ]; then exit 1; fi
            above=${above%/*}
        done
    done' sh <"$root/files")
}

# NULs and line breaks change places, so that grep compares whole names.
lines() {
    tr '\n\000' '\000\n'
}

payload() {
    base64 -d >"$run/payload" || return 1
    if [ -s "$run/payload" ]; then (cd "$run" && tar -xzmof payload) || return 1; fi
    rm -f "$run/payload"
}

# A large snapshot is linked while the pristine tree is looked at: both go through every file.  The
# code itself need not be looked at where that tree holds this very state, for nothing of the code
# gets into the snapshot then.  Sets copying and looking, empty where there is nothing to link.
copy_ahead() {
    copying=''
    linked=no
    part=$snapshot.part
    base=$root/pristine
    if [ "$how" != link ] || [ -d "$snapshot" ] || [ -s "$root/since" ] ||
        [ "$(cat "$root/manifest" 2>/dev/null)" != "$state" ] ||
        [ "$(cat "$base.state" 2>/dev/null)" != "$state" ]; then return 0; fi
    mkdir -p "${snapshot%/*}" && rm -rf "$part" || return 0
    touched >"$run/touched" &
    looking=$!
    cp -al "$base" "$part" 2>/dev/null &
    copying=$!
}

# Whether there is a tree that was linked ahead and is good; it is gone if not.
take_copy() {
    [ -n "$copying" ] || return 1
    wait "$looking"
    good=$?
    if wait "$copying" && [ "$good" = 0 ] && [ ! -s "$run/touched" ]; then
        copying=''
        linked=yes
        rm -f "$run/touched"
        return 0
    fi
    drop_copy
    return 1
}

drop_copy() {
    [ -n "$copying" ] || return 0
    wait "$looking" "$copying"
    copying=''
    rm -rf "$part" "$run/touched"
}

# Prints a file of the pristine tree that somebody has changed, or could.
touched() {
    find "$base" -type f \( -perm -200 -o -newer "$base.state" \) -print
}

take_snapshot() {
    [ -d "$snapshot" ] && return 0
    # beside it, for nothing in it is ours
    manifest=${snapshot%/*}/.${snapshot##*/}.manifest
    if [ "$linked" = no ]; then
        mkdir -p "${snapshot%/*}" && rm -rf "$part" || return 1
    fi
    if [ "$how" = link ]; then
        # neither the job nor a later push can change what another job reads: files are read-only,
        # and the pristine tree only ever gets new files in the place of old ones
        [ "$linked" = yes ] || { pristine && cp -al "$base" "$part"; } || return 1
        # it holds what the pristine tree holds
        if ! rv_whole "$root/pristine.manifest"; then
            rv_manifest "$root/pristine" "$root/pristine.manifest" || return 1
        fi
        ln -f "$root/pristine.manifest" "$manifest" || return 1
    else
        mkdir "$part" && copy_listed "$root/files" "$root/code" "$part" &&
            rv_manifest "$part" "$manifest" || return 1
    fi
    if [ -f "$run/writable" ]; then
        (cd "$part" && xargs -0 sh -c 'for file; do
            if [ -L "$file" ]; then continue; fi
            cp -p -- "$file" "$file.rvstate-own" && chmod u+w -- "$file.rvstate-own" &&
                mv -f -- "$file.rvstate-own" "$file" || exit 1
        done' sh <"$run/writable") || return 1
        rm -f "$run/writable"
    fi
    mv "$part" "$snapshot"
}

# copy_listed LIST FROM TO: copy the files of the list, and no others.
# Where one of them is gone (a purge of scratch takes single files), that is left in torn.
copy_listed() {
    rm -f "$run/torn"
    { (cd "$2" && tar --no-recursion --null -T "$1" -cf -) || : >"$run/torn"; } |
        (cd "$3" && tar -xmof -) || { rm -f "$run/torn"; return 1; }
    [ ! -e "$run/torn" ] || return 1
}

# A read-only tree of exactly the sent files, from which large snapshots are linked.
pristine() {
    found=$(cat "$base.state" 2>/dev/null)
    if [ -n "$found" ] && [ -z "$(touched | head -n 1)" ]; then
        [ "$found" = "$state" ] && [ ! -s "$root/since" ] && return 0
    else
        # a job has changed a file that it was not to change
        found=''
    fi
    rm -f "$base.state" "$base.manifest" || return 1
    if [ -n "$found" ] && [ -f "$root/since" ]; then
        renew || return 1
    else
        rm -rf "$base.old"
        if [ -d "$base" ]; then mv "$base" "$base.old" || return 1; fi
        mkdir "$base" && copy_listed "$root/files" "$root/code" "$base" || return 1
        find "$base" -type f -exec chmod a-w {} + || return 1
        rm -rf "$base.old"
    fi
    printf '%s\n' "$state" | rv_store "$base.state" 600 && rm -f "$root/since"
}

# Put the files that changed since into the pristine tree.
renew() {
    (cd "$base" && xargs -0 rm -f -- <"$root/since" 2>/dev/null
        xargs -0 rmdir -- <"$root/since" 2>/dev/null)
    # those of them that the tree still has
    (cd "$root/code" && xargs -0 sh -c 'for file; do
        if [ -L "$file" ] || [ -f "$file" ]; then printf "%s\0" "$file"; fi
    done' sh <"$root/since") >"$root/renewed" || return 1
    copy_listed "$root/renewed" "$root/code" "$base" || return 1
    (cd "$base" && xargs -0 sh -c 'for file; do
        [ -L "$file" ] || chmod a-w -- "$file" || exit 1
    done' sh <"$root/renewed") || return 1
    rm -f "$root/renewed"
}

# Snapshots that are old by the date in their own names, and by that of their submission (a laptop's
# clock may be wrong), and that no job in the queue needs.
prune() {
    oldest=${keep_after% *}
    since=${keep_after#* }
    # the state is the second word of the process scheduler's lines, and the third of squeue's
    awk -F '[\037 ]' '
        function ended(state) { return state ~ /^(COMPLETED|FAILED|CANCELLED|TIMEOUT|DEADLINE|OUT_OF_MEMORY)$/ }
        !ended($2) && !ended($3)' "$run/queue" >"$run/active" || return 0
    for old in "$root"/snapshots/*-????????-??????-????????; do
        [ -d "$old" ] || continue
        # no process for each: there may be a thousand
        id=${old%-????????-??????-????????}
        id=${old#"$id"-}
        stamp=${id%-*}
        case ${id##*-} in *[!0-9a-f]*) continue ;; esac
        # the queue was asked before this run was submitted, and its snapshot may be another run's
        case ${old##*/} in "${snapshot##*/}" | *-"${run##*/}") continue ;; esac
        # as numbers, for POSIX test compares no text
        [ "${stamp%-*}${stamp#*-}" -le "${oldest%-*}${oldest#*-}" ] 2>/dev/null || continue
        submitted=0
        if [ -s "${run%/*}/$id/intent" ]; then read -r submitted <"${run%/*}/$id/intent"; fi
        if [ "$submitted" -gt "$since" ] || [ -e "${run%/*}/$id/keep" ] ||
            grep -q -F -e "$id" "$run/active"; then continue; fi
        mv "$old" "$root/snapshots/.gone-$id" 2>/dev/null &&
            rm -f "$root/snapshots/.${old##*/}.manifest"
    done
    rm -f "$run/active"
    # nobody waits for the removal itself
    (trap - EXIT && rm -rf "$root"/snapshots/.gone-*) </dev/null >/dev/null 2>&1 &
}
