#!/bin/sh
# Shared by every script that travels; POSIX sh.  Each script defines `main` and is started by the
# last line of what is sent, `rv_run NONCE ARGUMENT...`, so that a text cut short does nothing.
# shellcheck shell=sh
# shellcheck disable=SC2034 # some variables are for the script behind this one

# what the user's own commands get back (execute.sh)
rv_locale=${LC_ALL-}
LC_ALL=C
export LC_ALL
unset CDPATH GREP_OPTIONS POSIXLY_CORRECT 2>/dev/null
rv_nonce=
rv_lockfile=
rv_newline='
'

# rv_run NONCE ARGUMENT...: run main inside a frame that noise cannot imitate.
rv_run() {
    rv_nonce=$1
    shift
    printf '\n@@rvstate %s begin\n' "$rv_nonce"
    main "$@"
    rv_status=$?
    printf '\n@@rvstate %s end %s\n' "$rv_nonce" "$rv_status"
    exit "$rv_status"
}

# rv_section NAME: what is printed next belongs to NAME.  A person at a terminal sees no frame.
rv_section() {
    [ -n "$rv_nonce" ] || return 0
    printf '\n@@rvstate %s %s\n' "$rv_nonce" "$1"
}

# rv_fail MESSAGE: say on standard error why, in one line; returns 1.
rv_fail() {
    printf 'rvstate: %s\n' "$1" >&2
    return 1
}

# rv_account SCRATCH_TEMPLATE HOME: set rv_user, rv_home, rv_scratch.
# The template may hold {user} and {home}; an empty HOME means the login's own.
rv_account() {
    rv_user=${USER:-${LOGNAME:-$(id -un)}}
    rv_home=
    rv_expand "${2:-$HOME}"
    # the dot keeps line breaks at the name's end, which are then refused by name
    rv_home=$(CDPATH='' cd -P -- "$rv_text" 2>/dev/null && pwd -P && printf .) || rv_home=$rv_text$rv_newline.
    rv_home=${rv_home%"$rv_newline".}
    rv_expand "$1"
    rv_scratch=$rv_text
}

# rv_fill TEXT: TEXT with {user} and {home} filled in.
rv_fill() {
    rv_expand "$1"
    printf '%s' "$rv_text"
}

# rv_expand TEXT: set rv_text to what rv_fill would print (no fork).
rv_expand() {
    rv_text=$1
    while :; do
        case $rv_text in
            *'{user}'*) rv_text=${rv_text%%'{user}'*}$rv_user${rv_text#*'{user}'} ;;
            *'{home}'*) rv_text=${rv_text%%'{home}'*}$rv_home${rv_text#*'{home}'} ;;
            *) break ;;
        esac
    done
}

# rv_real PATH: a path below /{home} or /{scratch} with the real root, in rv_path (no fork).
rv_real() {
    case $1 in
        '/{home}') rv_path=$rv_home ;;
        '/{home}/'*) rv_path=$rv_home/${1#'/{home}/'} ;;
        '/{scratch}') rv_path=$rv_scratch ;;
        '/{scratch}/'*) rv_path=$rv_scratch/${1#'/{scratch}/'} ;;
        *) rv_path=$1 ;;
    esac
}

# rv_sha256 FILE...: "DIGEST  NAME" lines; GNU has sha256sum, BSD has shasum.
rv_sha256() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum -- "$@"
    else
        shasum -a 256 -- "$@"
    fi
}

# rv_digest FILE: its SHA-256 alone; "-" where it cannot be read.
rv_digest() {
    # sha256sum marks a name it had to escape with a leading backslash
    rv_line=$(rv_sha256 "$1" 2>/dev/null) || rv_line=-
    rv_line=${rv_line%% *}
    printf '%s' "${rv_line#\\}"
}

# rv_started PID: set rv_start to when the process started, so that a recycled number is not taken
# for it; empty where there is none.
rv_started() {
    rv_start=
    if [ -r /proc/self/stat ]; then
        # field 22; the second field may hold blanks, so count from the last parenthesis
        { IFS= read -r rv_stat <"/proc/$1/stat"; } 2>/dev/null || return 0
        rv_stat=${rv_stat##*) }
        # shellcheck disable=SC2086 # the fields are numbers
        set -- $rv_stat
        # a zombie has ended
        if [ "$1" != Z ]; then rv_start=${20}; fi
    else
        rv_start=$(ps -o lstart= -p "$1" 2>/dev/null | tr -cs 'A-Za-z0-9' .)
    fi
}

# rv_identity: set rv_me to this process in words, HOST BOOT PID START, which no other one ever has.
rv_identity() {
    rv_boot=-
    if [ -r /proc/sys/kernel/random/boot_id ]; then
        read -r rv_boot </proc/sys/kernel/random/boot_id
    fi
    rv_started $$
    rv_me="$(uname -n) ${rv_boot:--} $$ ${rv_start:-0}"
}

# rv_lock FILE SECONDS: take the lock, or say who holds it; waits so long for a living owner.
# The lock is a link whose text names its owner: made in one step also where flock does not work
# (NFS, some Lustre mounts), and never there without its owner.
rv_lock() {
    rv_lockfile=$1
    rv_wait=$2
    rv_identity
    [ -d "${1%/*}" ] || (umask 077 && mkdir "${1%/*}") || rv_fail \
        "there is no directory ${1%/*} to lock the account in; run converge for all kinds" ||
        return 1
    while ! rv_take "$rv_lockfile"; do
        if [ -e "$rv_lockfile" ] || ! [ -w "${rv_lockfile%/*}" ]; then
            rv_fail "cannot make the lock $rv_lockfile; look what is there, and at its directory"
            return 1
        fi
        if [ "$rv_wait" -le 0 ]; then
            # shellcheck disable=SC2046 # the owner in words
            set -- $(readlink "$rv_lockfile" 2>/dev/null)
            if [ $# -ge 3 ]; then
                rv_fail "another rvstate is changing this account (process $3 on $1); wait for it"
            else
                rv_fail "cannot make the lock $rv_lockfile; is its file system full?"
            fi
            return 1
        fi
        rv_wait=$((rv_wait - 1))
        sleep 1
    done
    trap 'rv_unlock' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # comes back when the keeper has closed its output, which is when a signal can no longer get lost
    rv_keeper=$(rv_keep_lock & echo "$!")
}

# rv_take LINK [LOCK]: make the link ours, or take it from a dead owner; 1 where somebody has it.
# A dead owner's link is replaced only by whoever holds the claim on that very owner, and claims are
# taken the same way: so of several that see a dead owner one wins, however they are interleaved.
# A claim is called after the lock and the owner alone, however many died before: an owner has one
# link of a lock at a time, so that says which, and the name stays short.
rv_take() {
    # into a directory ln would put the link and say it was made
    if ! [ -d "$1" ] && ln -s "$rv_me" "$1" 2>/dev/null; then return 0; fi
    set -- "$1" "${2:-$1}" "$(readlink "$1" 2>/dev/null)"
    [ -n "$3" ] && rv_abandoned "$1" "$3" || return 1
    set -- "$@" "$2.$(printf '%s' "$3" | tr -c 'A-Za-z0-9' -)"
    rv_take "$4" "$2" || return 1
    if [ "$(readlink "$1" 2>/dev/null)" = "$3" ] && mv -f "$4" "$1"; then return 0; fi
    rm -f "$4"
    return 1
}

# rv_abandoned LINK "HOST BOOT PID START": whether the lock's owner is dead.  On this host the
# process is looked up; elsewhere a lock that nobody renewed for 10 minutes counts as left behind.
rv_abandoned() {
    # shellcheck disable=SC2086 # its words
    set -- "$1" $2
    rv_mine=${rv_me#* }
    if [ $# -ne 5 ] || [ "$2" != "${rv_me%% *}" ]; then
        [ -n "$(find "$1" -prune -mmin +10 2>/dev/null)" ]
    elif [ "$3" != "${rv_mine%% *}" ]; then
        return 0
    else
        rv_owned=$5
        rv_started "$4"
        [ "$rv_start" != "$rv_owned" ]
    fi
}

# rv_keep_lock: renew the lock's date while the owner lives, so that other hosts see it alive.
rv_keep_lock() {
    trap - EXIT HUP INT
    # shellcheck disable=SC2154 # the process of that moment
    trap 'kill "$!" 2>/dev/null; exit 0' TERM
    # the caller reads until every copy of these is closed, and a directory in use cannot go
    exec >/dev/null 2>&1 </dev/null
    cd / || exit 1
    rv_owned=${rv_me##* }
    while :; do
        sleep 20 &
        wait "$!"
        rv_started $$
        [ "$rv_start" = "$rv_owned" ] || exit 0
        [ "$(readlink "$rv_lockfile")" = "$rv_me" ] || exit 0
        touch -h "$rv_lockfile"
    done
}

# rv_unlock: give the lock back, if it is still ours.
rv_unlock() {
    trap - EXIT
    if [ -n "${rv_keeper:-}" ]; then kill "$rv_keeper" 2>/dev/null; fi
    if [ "$(readlink "$rv_lockfile" 2>/dev/null)" = "$rv_me" ]; then rm -f "$rv_lockfile"; fi
}

# rv_store FILE MODE: standard input becomes FILE at once or not at all, never readable by others
# before it has its mode.  MODE - keeps the mode, owner and group of a file that is there.
rv_store() {
    rv_temp=$1.rvstate-tmp-$$
    if [ -d "$1" ]; then rv_fail "$1 is a directory; move it away" || return 1; fi
    if [ -n "${rv_lockfile:-}" ]; then
        # what a killed run left; nobody else writes here while the lock is ours
        for rv_old in "$1".rvstate-tmp-*; do
            if [ -f "$rv_old" ]; then rm -f "$rv_old"; fi
        done
    fi
    if rv_fill_store "$1" "$2" && mv -f "$rv_temp" "$1"; then return 0; fi
    rm -f "$rv_temp"
    return 1
}

rv_fill_store() {
    if [ "$2" != - ]; then
        (umask 077 && cat >"$rv_temp") && chmod "$2" "$rv_temp"
    elif [ -e "$1" ]; then
        cp -p "$1" "$rv_temp" && cat >"$rv_temp"
    else
        cat >"$rv_temp"
    fi
}

# rv_store_first RUN_DIR: its jobs become what the run is, unless one of them has written that already;
# where a file system has no hard links, a moment later.
rv_store_first() {
    if ! ln "$1/copies" "$1/job" 2>/dev/null; then (set -C && cat "$1/copies" >"$1/job") 2>/dev/null; fi
    return 0
}

# rv_told NUMBER STATUS TEXT: say what became of one change, in one line: the last line of TEXT, in
# which rv_fail gives the reason.
rv_told() {
    rv_text=${3##*"$rv_newline"}
    if [ "$2" = 0 ]; then
        printf 'done %s %s\n' "$1" "$rv_text"
    else
        printf 'failed %s %s\n' "$1" "$rv_text"
    fi
}

# rv_find_library RUN_DIR: set rv_library to the scripts that a run was submitted with, where those
# let somebody enter it.
rv_find_library() {
    for rv_library in "$rv_scratch"/.rv/lib/*/; do
        rv_library=${rv_library%/}
        if [ -f "$rv_library/inside.sh" ] && grep -qF "/lib/${rv_library##*/}/job.sh" "$1/job.sh"; then
            return 0
        fi
    done
    rv_fail "this run was submitted by an older rvstate and cannot be entered; submit it again"
}

# rv_bare COMMAND...: run sbatch so that nothing of the submitting shell decides about the job.
rv_bare() {
    for rv_line in $(env | sed -n -e 's/^\(SBATCH_[A-Z0-9_]*\)=.*/\1/p' -e 's/^\(SLURM_[A-Z0-9_]*\)=.*/\1/p'); do
        [ "$rv_line" = SLURM_CONF ] || unset "$rv_line"
    done
    cd / && "$@"
}

# rv_chain: keepalive's own jobs that wait or run, "JOB STATE BEGIN", BEGIN in seconds since 1970.
rv_chain() {
    rv_text=$(env -u SQUEUE_PARTITION -u SQUEUE_ACCOUNT -u SQUEUE_QOS -u SQUEUE_FORMAT2 \
        SLURM_TIME_FORMAT=%s squeue --noheader --user="$(id -un)" --name=rv-keepalive \
        --states=PENDING,CONFIGURING,RUNNING,SUSPENDED --format='%A %T %S %k') || return 1
    printf '%s\n' "$rv_text" | sed -n 's/ rvstate-keepalive$//p'
}
