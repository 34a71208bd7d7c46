#!/bin/sh
# Tell the user's own address about a run.  Events are small files in RUN/notify, kept first and sent
# then, each signed; what could not be sent stays for the next one who comes by.
#   main started RUN                                    in the job: keep it, send it in the background
#   main ended RUN ERRORS STATE CODE                    behind the job: decide how it ended, send all
#   main late SCRATCH_TEMPLATE HOME RUNS (RUN_ID JOB STATE CODE ERRORS)...   what is left, one attempt
#   main test SCRATCH_TEMPLATE HOME RV BASE             one event of no run; says `answer STATUS`
# RUN/notify has `base` (the beginning of every event's JSON object), `due` until the end was told,
# and JOB.RESTART.start and JOB.end, each as .new, .job (the job is sending it) or .sent.
# ERRORS: the error log, for what a state does not say; for `ended` without JOB.err behind.  STATE -
# asks Slurm.  RV/env/notify has the address in its first line and the secret in its second, which
# no argument list ever holds: printf is the shell's own, curl reads its settings from a pipe.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which stands in front

main() {
    what=$1
    shift
    case $what in
        started) started "$@" ;;
        ended) ended "$@" ;;
        late) late "$@" ;;
        test) try "$@" ;;
    esac
}

# in_run RUN: go where its events are; 1 where nobody is to be told.
in_run() {
    run=$1
    address "${run%/runs/*}" || return 1
    cd "$run/notify" 2>/dev/null || return 1
}

# address RV: set `settings` and `url`.
address() {
    settings=$1/env/notify
    { IFS= read -r url <"$settings"; } 2>/dev/null && [ -n "$url" ]
}

started() {
    in_run "$1" || return 0
    event=STARTED
    restart=${SLURM_RESTART_COUNT:-0}
    if [ "$restart" != 0 ]; then event=RESUBMITTED; fi
    # of an array only the first element tells that it has started
    job=${RV_JOB_ID%_*}
    name=$job.$restart.start
    keep "$name" "$event" RUNNING '' && mv "$name.new" "$name.job" || return 0
    # the job goes on at once; should it end before, whoever tells of its end finds .job
    (if send "$name.job" 2 8 30; then mv "$name.job" "$name.sent"; else mv "$name.job" "$name.new"; fi) \
        </dev/null >/dev/null 2>&1 &
}

ended() {
    in_run "$1" || return 0
    job=$(cat "$run/job" 2>/dev/null)
    [ -n "$job" ] || return 0
    settle "$2$job.err" "$3" "$4" 60 2 8 30
}

late() {
    rv_account "$1" "$2"
    rv_real "$3"
    runs=$rv_path
    shift 3
    trap '' HUP
    # nobody waits for it
    each "$@" </dev/null >/dev/null 2>&1 &
}

each() {
    while [ $# -ge 5 ]; do
        job=$2
        # an address that does not answer is not asked for every run
        if in_run "$runs/$1"; then settle "$5" "$3" "$4" 0 || return 0; fi
        shift 5
    done
}

# settle ERRORS STATE CODE SECONDS PAUSE...: decide how the run ended and send all that is left; 1
# where something stays.  One at a time for each run, and SECONDS to wait for another one.
settle() {
    rv_identity
    # this may be a part of a shell in the background, whose own number only its child can tell
    own=$(exec sh -c 'echo "$PPID"')
    rv_started "$own"
    rv_me="${rv_me% * *} $own ${rv_start:-0}"
    left=$4
    until rv_take lock; do
        [ "$left" -gt 0 ] || return 0
        left=$((left - 1))
        sleep 1
    done
    found=0
    if [ -e due ]; then
        errors=$1
        state=$2
        code=$3
        shift 4
        all "$@" || found=1
    fi
    rm -f lock
    return "$found"
}

all() {
    # the job is over; where it was so short that it is still telling of its start, that comes first
    for pause in 1 1 1; do
        for file in *.job; do
            if [ -e "$file" ]; then sleep "$pause"; fi
            break
        done
    done
    for file in *.job; do
        if [ -e "$file" ]; then mv "$file" "${file%.job}.new"; fi
    done
    if ! is_kept "$job.end"; then
        if [ "$state" = - ]; then ask_slurm; fi
        how || return 1
        keep "$job.end" "$event" "$state" "$code" || return 1
    fi
    for file in *.new; do
        [ -e "$file" ] || continue
        send "$file" "$@" || return 1
        mv "$file" "${file%.new}.sent" || return 1
    done
    mv due told
}

# ask_slurm: set state to the job's; the controller forgets after minutes, accounting lags.
ask_slurm() {
    for pause in 1 2 5 10 0; do
        # of several jobs of an array each
        state=$(printf '%s\n' "$job" | tr , '\n' | while read -r one; do
            scontrol show job "$one" 2>/dev/null </dev/null
        done | sed -n 's/^ *JobState=\([A-Z_]*\).*/\1/p' | worst)
        if [ -z "$state" ]; then
            state=$(sacct --allocations --noheader --parsable2 --jobs="$job" --format=State 2>/dev/null | worst)
        fi
        case $state in
            '' | RUNNING | COMPLETING | PENDING | CONFIGURING | SUSPENDED | REQUEUED) sleep "$pause" ;;
            *) return 0 ;;
        esac
    done
    state=''
}

# worst: of the states of all elements of an array one that has not ended, else one that failed.
worst() {
    sed -n 's/^\([A-Z_]*\).*/\1/p' | sort -u | awk '
        /^(RUNNING|COMPLETING|PENDING|CONFIGURING|SUSPENDED|REQUEUED)$/ { going = $0 }
        /^(CANCELLED|PREEMPTED)$/ { ended = $0; next }
        !/^COMPLETED$/ { failed = $0 }
        { some = $0 }
        END { print (going != "" ? going : failed != "" ? failed : ended != "" ? ended : some) }'
}

# how: set event from state, and code from the job's own record; 1 where it has not ended.
how() {
    if [ -z "$code" ]; then code=$(sed 's/ .*//' "$run/exit" 2>/dev/null); fi
    # of several segments the whole time was used up
    if [ "$state" = FAILED ] && grep -q ' total$' "$run/exit" 2>/dev/null; then state=TIMEOUT; fi
    case $state in
        COMPLETED) event=COMPLETED ;;
        TIMEOUT | DEADLINE) event=TIMEOUT ;;
        OUT_OF_MEMORY) event=OUT_OF_MEMORY ;;
        CANCELLED | PREEMPTED | REVOKED) event=CANCELLED ;;
        FAILED | NODE_FAIL | BOOT_FAIL) event=FAILED ;;
        *)
            # nobody knows but the job itself
            case $code in
                '') return 1 ;;
                0) event=COMPLETED ;;
                *) event=FAILED ;;
            esac
            ;;
    esac
    if [ "$event" = FAILED ] && tail -n 50 "$errors" 2>/dev/null | grep -q -i -E \
        -e 'exceeded (job |step )?memory limit|oom[-_]kill|out[ -]of[ -]memory handler|OOM Killed'; then
        event=OUT_OF_MEMORY
    fi
}

# keep NAME EVENT STATE CODE: write an event whole, once.
keep() {
    if is_kept "$1"; then return 0; fi
    id=${run##*/}:$1
    write "$id" "$2" "$3" "$4" >".$1.$$" && ln ".$1.$$" "$1.new"
    kept=$?
    rm -f ".$1.$$"
    return "$kept"
}

# is_kept NAME: whether an event is there, told or not.
is_kept() {
    for file in "$1".*; do
        if [ -e "$file" ]; then return 0; fi
    done
    return 1
}

# write ID EVENT STATE CODE: the event on standard output; only plain words and digits are added.
write() {
    cat base || return 1
    printf ',"id":"%s","event":"%s","state":"%s","job":"%s","at":%s' \
        "$1" "$2" "$3" "$job" "$(date +%s)"
    case $4 in
        '' | *[!0-9]*) ;;
        *) printf ',"exit_code":%s' "$4" ;;
    esac
    printf ',"node":"%s"}\n' "$(uname -n | tr -c -d 'A-Za-z0-9.-')"
}

# send FILE PAUSE...: 0 when it was taken; again after each pause where that may help.
send() {
    file=$1
    shift
    while :; do
        status=$(post "$file")
        case $status in
            2??) return 0 ;;
            408 | 429 | 5?? | 000 | '') [ $# -gt 0 ] || return 1 ;;
            *) return 1 ;;
        esac
        sleep "$1"
        shift
    done
}

# post FILE: say what the address answered; 000 for nothing.  Who tells of the end takes FILE's name
# away from who tells of the start, so what is signed and sent has a name of its own.
post() {
    case $1 in
        */*) own=${1%/*}/.${1##*/}.$$ ;;
        *) own=.$1.$$ ;;
    esac
    ln "$1" "$own" 2>/dev/null || cp "$1" "$own" || return 1
    now=$(date +%s)
    if ! signature=$(sign "$now" "$own"); then
        rm -f "$own"
        return 1
    fi
    {
        printf 'url = "%s"\n' "$url"
        printf 'header = "%s"\n' 'Content-Type: application/json' "Rvstate-Time: $now" \
            "Rvstate-Signature: v1=$signature"
        printf 'data-binary = "@%s"\n' "$own"
    } | curl -q --silent --show-error --proto '=http,https' --noproxy 'localhost,127.0.0.1,::1' \
        --connect-timeout 5 --max-time 15 --output /dev/null --write-out '%{http_code}' --config -
    rm -f "$own"
}

# sign TIME FILE: HMAC-SHA256 (RFC 2104) of "v1:TIME:" and the file, in hexadecimal.
sign() {
    key=$(sed -n 2p "$settings" | tr -d '\n' | od -An -v -tu1) || return 1
    # shellcheck disable=SC2086 # its bytes as numbers
    set -- "$1" "$2" $key
    # a block is 64 bytes, and no longer secret is ever kept
    [ $# -gt 2 ] && [ $# -le 66 ] || return 1
    inner=$({
        pad 54 "$@"
        printf 'v1:%s:' "$1"
        cat "$2"
    } | rv_sha256 -)
    inner=${inner%% *}
    outer=$({
        pad 92 "$@"
        while [ -n "$inner" ]; do
            rest=${inner#??}
            byte 0x"${inner%"$rest"}"
            inner=$rest
        done
    } | rv_sha256 -)
    printf '%s' "${outer%% *}"
}

# pad NUMBER TIME FILE BYTE...: the key, filled up with zeros, each byte combined with NUMBER.
pad() {
    with=$1
    shift 3
    count=0
    while [ "$count" -lt 64 ]; do
        byte $((${1:-0} ^ with))
        if [ $# -gt 0 ]; then shift; fi
        count=$((count + 1))
    done
}

# byte NUMBER: that byte.
byte() {
    printf '%b' "\\0$(printf '%03o' "$1")"
}

try() {
    rv_account "$1" "$2"
    rv_real "$3"
    if ! address "$rv_path"; then
        printf 'answer none\n'
        return 0
    fi
    work=$(mktemp -d) && cd "$work" || return 1
    printf '%s' "$4" >base
    job=0
    write "test:$(date +%s).$$" TEST TEST '' >event
    printf 'answer %s\n' "$(post event)"
    cd / && rm -rf "$work"
}
