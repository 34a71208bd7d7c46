#!/bin/sh
# A Jupyter server in a running job; there is one for each run.
#   main start SCRATCH_TEMPLATE HOME RUN JOB TOKEN NODE
#   main undo SCRATCH_TEMPLATE HOME RUN JOB TOKEN     end it if it was begun with that token
# Says the server's own record (JSON, with port and token), its step and node, and `begun` if it was
# not there before.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    word=$1
    shift
    rv_account "$1" "$2"
    rv_real "$3"
    run=$rv_path
    job=$4
    token=$5
    place=$run/jupyter
    if [ "$word" = undo ]; then
        undo
        return
    fi
    rv_find_library "$run" || return 1
    (umask 077 && mkdir -p "$place") || return 1
    rv_lock "$place/lock" 30 || return 1
    find_step || rv_fail "Slurm does not say what runs in job $job" || return 1
    if [ -z "$step" ]; then
        rm -f "$place"/jpserver-*.json
        begin "$6" || return 1
    fi
    await
}

# Others may be at work in a server that this token did not begin.
undo() {
    if [ "$(cat "$place/begun" 2>/dev/null)" != "$token" ]; then return 0; fi
    find_step || return 1
    if [ -n "$step" ]; then scancel "$step"; fi
}

# find_step: the server's step and node; its name is what Slurm knows it by on every login node.
find_step() {
    steps=$(squeue --noheader --steps --jobs="$job" --format='%i %N %j') || return 1
    step=$(printf '%s\n' "$steps" | awk '$3 == "rvstate-jupyter" { print $1, $2; exit }')
    node=${step#* }
    step=${step%% *}
}

begin() {
    # what is saved there lies in the run's snapshot, which is not to be pruned under anybody's hands
    : >>"$run/keep" || return 1
    # the token is in private files and in the server's environment, never in a list of processes
    (
        umask 077
        printf '%s' "$token" >"$place/begun" || exit 1
        # shellcheck disable=SC2016 # expanded in the job
        printf 'export JUPYTER_TOKEN=%s JUPYTER_RUNTIME_DIR="$RV_RUN_DIR/jupyter"\n' "$token"
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
            find_step || continue
            # the record is there before squeue knows the step
            [ -n "$step" ] || continue
            rv_section server && cat "$record"
            rv_section step && printf '%s' "$step"
            rv_section node && printf '%s' "$node"
            if [ -n "${server-}" ]; then rv_section begun; fi
            return 0
        done
        if [ -n "${server-}" ] && ! kill -0 "$server" 2>/dev/null; then
            rv_fail "$(grep -v '^srun: ' "$place/log" | tail -n 1 | sed 's/^rvstate: //')" || return 1
        fi
        sleep 0.2
    done
    rv_fail "the server did not come up within a minute; its log is $place/log"
}
