#!/bin/sh
# A Jupyter server in a running job; there is one for each run.
#   main start SCRATCH_TEMPLATE HOME RUN JOB NODE TOKEN
#   main stop SCRATCH_TEMPLATE HOME RUN JOB
# Says the server's own record (JSON, with port and token) and the id of its step.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    word=$1
    shift
    rv_account "$1" "$2"
    rv_real "$3"
    run=$rv_path
    job=$4
    place=$run/jupyter
    if [ "$word" = stop ]; then
        find_step
        if [ -n "$step" ]; then scancel "$step"; fi
        return
    fi
    rv_find_library "$run" || return 1
    (umask 077 && mkdir -p "$place") || return 1
    rv_lock "$place/lock" 30 || return 1
    find_step
    if [ -z "$step" ]; then
        rm -f "$place"/jpserver-*.json
        begin "$5" "$6" || return 1
    fi
    await
}

# find_step: the server's step; its name is what Slurm knows it by on every login node.
find_step() {
    step=$(squeue --noheader --steps --jobs="$job" --format='%i %j' 2>/dev/null |
        awk '$2 == "rvstate-jupyter" { print $1; exit }')
}

begin() {
    # the token is in a private file and in the server's environment, never in a list of processes
    (
        umask 077
        # shellcheck disable=SC2016 # expanded in the job
        printf 'export JUPYTER_TOKEN=%s JUPYTER_RUNTIME_DIR="$RV_RUN_DIR/jupyter"\n' "$2"
        cat <<'END'
for form in lab notebook server; do
    command -v "jupyter-$form" >/dev/null || continue
    exec "jupyter-$form" --no-browser --ip=127.0.0.1 --port=8888 --port-retries=100
done
echo "rvstate: the environment of this job has no jupyter; add jupyterlab to its requirements" >&2
exit 127
END
    ) >"$place/start" || return 1
    # it is to live as long as the job, whatever becomes of this connection
    setsid srun --job-name=rvstate-jupyter --overlap --quiet --jobid="$job" --nodelist="$1" --nodes=1 \
        --ntasks=1 --export=NONE /bin/bash "$rv_library/inside.sh" "$run" file "$place/start" \
        </dev/null >"$place/log" 2>&1 &
    server=$!
}

await() {
    for _ in $(seq 300); do
        for record in "$place"/jpserver-*.json; do
            [ -s "$record" ] || continue
            find_step
            rv_section server && cat "$record"
            rv_section step && printf '%s' "$step"
            return 0
        done
        if [ -n "${server-}" ] && ! kill -0 "$server" 2>/dev/null; then
            rv_fail "$(grep -v '^srun: ' "$place/log" | tail -n 1 | sed 's/^rvstate: //')" || return 1
        fi
        sleep 0.2
    done
    rv_fail "the server did not come up within a minute; its log is $place/log"
}
