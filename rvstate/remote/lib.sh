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

# rv_section NAME: what is printed next belongs to NAME.
rv_section() {
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
    rv_home=${2:-$HOME}
    rv_home=$(CDPATH='' cd -P -- "$(rv_fill "$rv_home")" 2>/dev/null && pwd -P) || rv_home=${2:-$HOME}
    rv_scratch=$(rv_fill "$1")
}

# rv_fill TEXT: TEXT with {user} and {home} filled in.
rv_fill() {
    rv_text=$1
    while :; do
        case $rv_text in
            *'{user}'*) rv_text=${rv_text%%'{user}'*}$rv_user${rv_text#*'{user}'} ;;
            *'{home}'*) rv_text=${rv_text%%'{home}'*}$rv_home${rv_text#*'{home}'} ;;
            *) break ;;
        esac
    done
    printf '%s' "$rv_text"
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

# rv_ended PID START: whether that process of this host is gone (START as /proc or ps tells it).
rv_ended() {
    kill -0 "$1" 2>/dev/null || return 0
    [ "$(rv_started "$1")" != "$2" ]
}

# rv_started PID: when the process started, so that a recycled number is not taken for it.
rv_started() {
    if [ -r "/proc/$1/stat" ]; then
        # field 22; the second field may hold blanks, so count from the last parenthesis
        rv_stat=$(cat "/proc/$1/stat" 2>/dev/null)
        rv_stat=${rv_stat##*) }
        # shellcheck disable=SC2086 # the fields are numbers
        set -- $rv_stat
        shift 19 2>/dev/null && printf '%s' "$1"
    else
        ps -o lstart= -p "$1" 2>/dev/null | tr -s ' '
    fi
}

# rv_lock DIRECTORY SECONDS: take the lock, or say who holds it.  mkdir is atomic also where flock
# does not work (NFS, some Lustre mounts).  A dead owner's lock is taken over: on the same host the
# process is looked up, elsewhere a lock that nobody renewed for 10 minutes counts as left behind.
rv_lock() {
    rv_lockdir=$1
    rv_wait=$2
    rv_me="$(uname -n) $$ $(rv_started $$)"
    while ! mkdir -m 700 "$rv_lockdir" 2>/dev/null; do
        [ -d "$rv_lockdir" ] || rv_fail "cannot make the lock $rv_lockdir" || return 1
        rv_owner=$(cat "$rv_lockdir/owner" 2>/dev/null)
        if rv_abandoned "$rv_owner"; then
            # rename first: of several that see a dead owner only one wins
            if mv "$rv_lockdir" "$rv_lockdir.dead.$$" 2>/dev/null; then
                rm -rf "$rv_lockdir.dead.$$"
            fi
            continue
        fi
        if [ "$rv_wait" -le 0 ]; then
            rv_fail "busy: another rvstate (${rv_owner:-just starting}) is changing this account"
            return 1
        fi
        rv_wait=$((rv_wait - 1))
        sleep 1
    done
    printf '%s\n' "$rv_me" >"$rv_lockdir/owner"
    trap 'rv_unlock' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    rv_keep_lock &
    rv_keeper=$!
}

# rv_abandoned "HOST PID START": whether the lock's owner is dead.
rv_abandoned() {
    if [ -z "$1" ]; then
        # killed between mkdir and the next line
        [ -n "$(find "$rv_lockdir" -prune -mmin +1 2>/dev/null)" ]
        return
    fi
    # shellcheck disable=SC2086 # three words
    set -- $1
    if [ "$1" = "$(uname -n)" ]; then
        rv_host=$1
        rv_pid=$2
        shift 2
        [ -n "$rv_host" ] && rv_ended "$rv_pid" "$*"
    else
        [ -n "$(find "$rv_lockdir" -prune -mmin +10 2>/dev/null)" ]
    fi
}

# rv_keep_lock: renew the lock's date while the owner lives, so that other hosts see it alive.
rv_keep_lock() {
    trap - EXIT HUP INT TERM
    # the caller reads until every copy of these is closed
    exec >/dev/null 2>&1 </dev/null
    while sleep 30 && kill -0 $$ 2>/dev/null; do
        touch "$rv_lockdir/owner" "$rv_lockdir"
    done
}

# rv_unlock: give the lock back, if it is still ours.
rv_unlock() {
    trap - EXIT
    [ -n "${rv_keeper:-}" ] && kill "$rv_keeper" 2>/dev/null
    if [ "$(cat "$rv_lockdir/owner" 2>/dev/null)" = "$rv_me" ]; then
        rm -rf "$rv_lockdir"
    fi
}

# rv_store FILE MODE: standard input becomes FILE at once or not at all, never readable by others
# before it has its mode.
rv_store() {
    rv_temp=$1.rvstate-$$
    if (umask 077 && cat >"$rv_temp") && chmod "$2" "$rv_temp" && mv -f "$rv_temp" "$1"; then
        return 0
    fi
    rm -f "$rv_temp"
    return 1
}
