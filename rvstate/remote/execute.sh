#!/bin/sh
# Run a command of the user's on the login node and let it speak for itself.
#   main string COMMAND     a line of shell, run by bash where there is one, else by sh
#   main words WORD...      a program with its arguments
#   main end PGID           end what an earlier call started, as Ctrl-C would
# Says `group PGID` first and `status N` at once behind the command's last byte, then exits with it.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    if [ "$1" = end ]; then
        end_group "$2"
        return
    fi
    # the user's own locale, not the one that our scripts read and write in
    if [ -n "$rv_locale" ]; then LC_ALL=$rv_locale; else unset LC_ALL; fi
    rv_section "group $(ps -o pgid= -p $$ | tr -d ' ')"
    shell="sh"
    if command -v bash >/dev/null 2>&1; then shell="bash"; fi
    # words are a program, a builtin or a function that the site exports (module), never grammar
    case $1 in
        words) shift && "$shell" -c '"$@"' "$shell" "$@" ;;
        *) "$shell" -c "$2" ;;
    esac
    status=$?
    # no line break in front: the reader would have to hold back every last one of the command's own
    [ -n "$rv_nonce" ] || exit "$status"
    printf '@@rvstate %s status %s\n' "$rv_nonce" "$status"
    exit "$status"
}

end_group() {
    kill -s INT -- "-$1" 2>/dev/null || return 0
    for pause in 0.2 0.5 1 1; do
        sleep "$pause"
        kill -s 0 -- "-$1" 2>/dev/null || return 0
    done
    kill -s TERM -- "-$1" 2>/dev/null
    sleep 1
    kill -s KILL -- "-$1" 2>/dev/null
    return 0
}
