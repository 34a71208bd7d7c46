#!/bin/sh
# The end of the program that a schedule on the cluster runs (.rv/schedule/run), behind lib.sh and
# the script that does the work; `rv_main` is that script with its arguments, `rv_submit` the
# sbatch that submits the next job of a chain.
#   run KIND DIR     do the work, if KIND is what is declared, and keep how it went in DIR
#   run submit DIR   see to it that one job of the chain waits
# Nobody reads what it prints: the last run's output is in DIR/log, its end in DIR/last.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which stands in front

rv_start() {
    how=$1
    dir=$2
    case $0 in
        "$dir"/*) ;;
        # Slurm runs a copy from the day of the submission; what is declared now counts
        *) exec sh "$dir/run" "$@" ;;
    esac
    # cron's own path knows neither Slurm nor the site's tools
    if [ -s "$dir/path" ]; then PATH=$(cat "$dir/path"); fi
    export PATH
    if [ "$how" = submit ]; then
        next
        return
    fi
    declared=
    if [ -s "$dir/record" ]; then read -r declared _ <"$dir/record"; fi
    # taken out of the settings meanwhile
    [ "$declared" = "$how" ] || return 0
    # a full scratch does not hinder what needs no room
    log=/dev/null
    if : 2>/dev/null >"$dir/log"; then log=$dir/log; fi
    if [ "$how" = sbatch-chain ]; then (next) >>"$log" 2>&1; fi
    (rv_main) >>"$log" 2>&1 </dev/null
    status=$?
    {
        printf 'ended %s\nstatus %s\n' "$(date +%s)" "$status"
        awk '/^is damaged$/ { damaged++ } /^rvstate: / { said = substr($0, 10) }
            END { printf "damaged %d\n", damaged; if (said) print "said " said }' "$log"
    } 2>/dev/null | rv_store "$dir/last" 600 2>/dev/null
    return "$status"
}

# One job waits, never two: looked up under a lock, and nothing is submitted where the queue does not
# answer.  A chain that ends so is found by the next look at the account.
next() {
    rv_lock "$dir.lock" 60 || return 1
    tries=3
    until jobs=$(rv_chain); do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] ||
            rv_fail "the queue does not answer, so no next job was submitted" || return 1
        sleep 10
    done
    # the job that this is does not wait any more
    others=$(printf '%s\n' "$jobs" | awk -v me="${SLURM_JOB_ID:-}" '$1 != "" && $1 != me')
    if [ -n "$others" ]; then return 0; fi
    rv_bare rv_submit "$dir/run" sbatch-chain "$dir" </dev/null
}
