#!/bin/bash
# A Ray cluster within a job: started on its nodes, used by one program, and ended with it.  Sourced
# behind job.sh by the batch script, which runs on the first node; srun runs the same file on all:
#   ray.sh node ENV_FILE NEED
# Beside it lie what runs and what it leaves behind:
#   plan.json driver.py   what runs on it; the driver says more, and calls `ray.sh begin|end STAGE`
#   stages.sh  what each stage is, where records of them are kept
#   token      who may use this Ray: 0600, and only ever read as a file; gone at the end
#   address    where the first node's Ray is: HOST:PORT DIRECTORY
#   failed     why it cannot go on, by the first node that knew
#   ending     the driver is done
#   srun.log  nodeN.log  logs/nodeN/   what srun and Ray said there
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # rv_* come from job.sh, or are read there

# Ray puts session_DATE_PID/sockets/plasma_store below its directory, and a socket's path has at
# most 107 bytes (unix(7)).
rv_ray_longest=40

# rv_ray LIBRARY NODES COPIES: run the driver on a Ray of these nodes.  LIBRARY: where job.sh lies.
# COPIES: how many copies of the environment each node may have to hold, one for each stage that adds
# packages.
rv_ray() {
    rv_ray=${BASH_SOURCE[0]%/*}
    RV_RAY_LIBRARY=$1
    export RV_RAY_LIBRARY
    if [ -n "${SLURM_JOB_ID:-}" ] && [ "${SLURM_JOB_NUM_NODES:-0}" != "$2" ]; then
        rv_give_up "the job was made for $2 nodes and has ${SLURM_JOB_NUM_NODES:-none}"
    fi
    python -c 'import ray' || rv_give_up "the environment has no Ray: add ray[data] to the project's requirements"
    # older ones let anybody in who reaches them
    python -c 'import ray, sys; sys.exit([int(n) for n in ray.__version__.split(".")[:2]] < [2, 52])' ||
        rv_give_up "the environment's Ray is older than 2.52 and knows no tokens: ask for ray[data]>=2.52"
    if [ "$3" -gt 0 ]; then
        python -c 'import pip, virtualenv' ||
            rv_give_up "Ray needs pip and virtualenv in the environment, to add packages of stages: install them"
    fi
    # another attempt's, where Slurm has started the job again
    rm -rf "$rv_ray/address" "$rv_ray/failed" "$rv_ray/ending" "$rv_ray"/node*.log "$rv_ray/logs" "$rv_run_dir/stages"
    (umask 077 && rm -f "$rv_ray/token" && od -A n -t x1 -N 32 /dev/urandom | tr -d ' \n' >"$rv_ray/token") &&
        [ -s "$rv_ray/token" ] || rv_give_up "cannot write $rv_ray/token"
    unset RAY_ADDRESS RAY_AUTH_TOKEN
    RAY_AUTH_MODE=token
    RAY_AUTH_TOKEN_PATH=$rv_ray/token
    RAY_USAGE_STATS_ENABLED=0
    # every line that a worker prints, also where several print the same
    RAY_DEDUP_LOGS=0
    # at the end nothing is worth waiting for: the scheduler does not wait for long
    RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
    # colours are for terminals
    RAY_COLOR_PREFIX=0
    export RAY_AUTH_MODE RAY_AUTH_TOKEN_PATH RAY_USAGE_STATS_ENABLED RAY_DEDUP_LOGS RAY_COLOR_PREFIX
    export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
    rv_ray_nodes "$(rv_ray_need "$3")" &
    rv_ray_step=$!
    rv_await rv_ray_driver
    rv_ray_close
    rv_end "$rv_status"
}

# rv_ray_need COPIES: KiB that Ray may need below its directory: copies of the environment (Ray
# clones it for packages of a stage's own), and 512 MiB for its logs and what does not fit in memory.
rv_ray_need() {
    local size=0
    if [ "$1" -gt 0 ] && [ -n "${VIRTUAL_ENV:-}" ]; then size=$(du -sk "$VIRTUAL_ENV" | sed 's/[^0-9].*//'); fi
    printf '%s' $(($1 * ${size:-0} + 524288))
}

# rv_ray_nodes NEED: Ray on each node, to its end; without Slurm this machine is the only one.
rv_ray_nodes() {
    local cpus=() status
    trap - TERM INT HUP USR1 USR2
    set -- bash "${BASH_SOURCE[0]}" node "$rv_env_file" "$1"
    if [ -z "${SLURM_JOB_ID:-}" ]; then
        exec "$@"
    fi
    [ -z "${SLURM_CPUS_PER_TASK:-}" ] || cpus=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
    # one node's end is told to the others, which then tidy up; srun would kill them
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 "${cpus[@]}" \
        --kill-on-bad-exit=0 --wait=0 "$@" 2>"$rv_ray/srun.log"
    status=$?
    [ -e "$rv_ray/ending" ] ||
        rv_ray_failed "Ray has ended on all nodes (srun's exit code $status): $(tail -n 1 "$rv_ray/srun.log")"
    exit "$status"
}

# rv_ray_driver: becomes the program that runs the stages.
rv_ray_driver() {
    rv_become python "$rv_ray/driver.py" "$rv_ray"
}

# rv_ray_close: end Ray on all nodes and wait until they have tidied up.
rv_ray_close() {
    local turn
    trap '' TERM INT HUP USR1 USR2
    : >"$rv_ray/ending"
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        scancel --signal=TERM "$SLURM_JOB_ID.0" 2>/dev/null
    else
        kill -s TERM "$rv_ray_step" 2>/dev/null
    fi
    for ((turn = 0; turn < 100; turn++)); do
        kill -0 "$rv_ray_step" 2>/dev/null || break
        sleep 0.2
    done
    kill -s KILL "$rv_ray_step" 2>/dev/null
    wait "$rv_ray_step" 2>/dev/null
    rm -f "$rv_ray/token"
}

# rv_ray_failed WHY: of several only the first can make this file; the driver reads it.
rv_ray_failed() {
    (set -o noclobber && printf '%s\n' "$1" >"$rv_ray/failed") 2>/dev/null
    printf 'rvstate: %s\n' "$1" >&2
}

# rv_ray_node ENV_FILE NEED: Ray on this node, until it is told to end or ends by itself.
rv_ray_node() {
    local number=${SLURM_NODEID:-0} words
    rv_ray=${BASH_SOURCE[0]%/*}
    rv_ray_here="node$number ($(uname -n))"
    rv_ray_place=
    rv_env_file=$1
    rv_kept=()
    rv_warning=
    rv_deliver=rv_ray_signal
    exec </dev/null >>"$rv_ray/node$number.log" 2>&1
    trap 'rv_ray_clean "$number"' EXIT
    trap 'rv_terminated=yes; exit 143' TERM INT HUP
    rv_ray_sweep
    rv_ray_own
    # all ports are such as are free: those that Ray would take by itself another job may have
    words=(--block "--node-ip-address=$rv_ray_address" --disable-usage-stats --metrics-export-port=0
        --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0
        "--num-cpus=${SLURM_CPUS_ON_NODE:-$(getconf _NPROCESSORS_ONLN)}")
    # what Ray finds by itself is the machine's memory, of which the job may have a part
    if [ "${SLURM_MEM_PER_NODE:-0}" -gt 0 ]; then
        words+=("--object-store-memory=$((SLURM_MEM_PER_NODE * 1048576 * 3 / 10))")
    fi
    if [ "$number" = 0 ]; then
        rv_ray_choose "$2"
        words+=(--head --port=0 --include-dashboard=false --dashboard-host=127.0.0.1
            "--temp-dir=$rv_ray_place")
        # where grpc is, Ray starts one more server, which cannot be switched off
        if python -c 'import grpc' 2>/dev/null; then words+=("--ray-client-server-port=$(rv_port 21001)"); fi
        rv_ray_tell &
    else
        rv_ray_join "$2"
        words+=("--address=$rv_ray_head")
    fi
    RAY_TMPDIR=$rv_ray_place
    export RAY_TMPDIR
    rv_await rv_ray_process "${words[@]}"
    if [ -e "$rv_ray/ending" ]; then exit 0; fi
    if [ -n "$rv_terminated" ]; then
        rv_ray_failed "$rv_ray_here: the scheduler has ended Ray"
        exit 0
    fi
    rv_ray_failed "$rv_ray_here: Ray ended by itself (exit code $rv_status)$(rv_ray_cause "$number")"
    exit 1
}

# rv_ray_signal SIGNAL: to Ray, which gets three seconds: schedulers do not wait for long.
rv_ray_signal() {
    kill -s "$1" "$rv_child" 2>/dev/null
    (env -u RAY_TMPDIR sleep 3 && kill -s KILL "$rv_child") >/dev/null 2>&1 &
}

# rv_ray_process WORDS...: becomes Ray; it has the user's variables, for its workers have them from it.
rv_ray_process() {
    rv_become python -m ray.scripts.scripts start "$@"
}

# rv_ray_cause NUMBER: what Ray said of it, in a few words.
rv_ray_cause() {
    local line
    line=$(sed -n -E 's/^.* ([a-z_]+) \[exit code=([^]]*)\].*/its \1 ended with \2/p' "$rv_ray/node$1.log" | tail -n 1)
    [ -z "$line" ] || printf ': %s' "$line"
}

# rv_ray_own: this node's address, as the way to another node of the job has it; of one node, or where
# all nodes are this machine, a loopback address.  It is not 127.0.0.1, which Ray replaces by whatever
# address it finds first.
rv_ray_own() {
    local other=
    if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
        other=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | grep -v -x -F -e "${SLURMD_NODENAME:-$(uname -n)}" | head -n 1)
    fi
    # nothing is sent by this
    rv_ray_address=$([ -z "$other" ] || python -c 'import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 9))
print(s.getsockname()[0])' "$other")
    case $rv_ray_address in
        '' | 127.*) rv_ray_address=127.0.0.$((2 + ${SLURM_NODEID:-0} % 200)) ;;
    esac
}

# rv_ray_choose NEED: a directory for Ray on this node, which no other has.
rv_ray_choose() {
    local base reason why=
    for base in "${SLURM_TMPDIR:-}" "${TMPDIR:-}" /tmp /var/tmp; do
        base=${base%/}
        case $base in /*) ;; *) continue ;; esac
        reason=$(rv_ray_unfit "$base" "$1")
        if [ -z "$reason" ] && rv_ray_place=$(mktemp -d "$base/rvray.XXXXXX"); then
            rv_ray_owner
            return 0
        fi
        case "; $why;" in *"; $reason;"*) ;; *) why="$why${why:+; }$reason" ;; esac
    done
    rv_ray_failed "$rv_ray_here has no place for Ray: $why"
    exit 1
}

# rv_ray_join NEED: wait for the first node, and make the directory that Ray has there here, too.
rv_ray_join() {
    local turn reason found
    for ((turn = 0; turn < 600; turn++)); do
        if [ -s "$rv_ray/failed" ]; then exit 1; fi
        if [ -s "$rv_ray/address" ]; then break; fi
        sleep 0.5
    done
    read -r rv_ray_head found <"$rv_ray/address" || {
        rv_ray_failed "$rv_ray_here has waited 5 minutes for Ray on the first node"
        exit 1
    }
    reason=$(rv_ray_unfit "${found%/*}" "$1")
    if [ -z "$reason" ]; then
        mkdir -m 700 "$found" && rv_ray_place=$found && rv_ray_owner && return 0
        reason="$found cannot be made"
    fi
    rv_ray_failed "$rv_ray_here has no place for Ray: $reason"
    exit 1
}

# rv_ray_unfit BASE NEED: why Ray cannot have a directory there; nothing where it can.
rv_ray_unfit() {
    local left
    if ! [ -d "$1" ] || ! [ -w "$1" ]; then
        printf '%s is no directory that you can write to' "$1"
    elif [ "$((${#1} + 13))" -gt "$rv_ray_longest" ]; then
        printf '%s is too long for the sockets that Ray makes in it' "$1"
    else
        # clones of environments are many small files, and sockets are of one node
        case $(stat -f -c %T "$1") in
            nfs* | lustre | gpfs | ceph | fuse* | smb* | cifs | afs | panfs | UNKNOWN*)
                printf '%s is not of this node' "$1"
                return
                ;;
        esac
        left=$(df -Pk "$1" | sed -n '2s/^.* \([0-9][0-9]*\)  *[0-9]*% .*/\1/p')
        [ "${left:-0}" -ge "$2" ] ||
            printf '%s has %s MiB left and Ray may need %s' "$1" "$((${left:-0} / 1024))" "$(($2 / 1024))"
    fi
}

# rv_ray_owner: who the directory belongs to: a process on a node.
rv_ray_owner() {
    printf '%s %s %s\n' "$(uname -n)" "$$" "$(rv_ray_began "$$")" >"$rv_ray_place/.rvstate"
}

# rv_ray_began PID: when it did, in ticks since the node did (proc(5)); nothing where there is none.
rv_ray_began() {
    sed -n 's/^.*) //p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

# rv_ray_sweep: remove what jobs that were killed outright have left on this node.
rv_ray_sweep() {
    local base place host pid began
    for base in "${SLURM_TMPDIR:-}" "${TMPDIR:-}" /tmp /var/tmp; do
        for place in "${base%/}"/rvray.*; do
            if [ -z "$base" ] || [ -L "$place" ] || ! [ -d "$place" ] || ! [ -O "$place" ]; then continue; fi
            read -r host pid began 2>/dev/null <"$place/.rvstate" || continue
            [ "$host" = "$(uname -n)" ] && [ -n "$began" ] || continue
            [ "$(rv_ray_began "$pid")" = "$began" ] || rm -rf "$place"
        done
    done
}

# rv_ray_tell: write down where the first node's Ray is, once it is there.
rv_ray_tell() {
    local port
    until port=$(cat "$rv_ray_place"/session_2*/gcs_server_port_* 2>/dev/null) && [ -n "$port" ]; do
        sleep 0.1
        [ -d "$rv_ray_place" ] || return 0
    done
    printf '%s:%s %s\n' "$rv_ray_address" "$port" "$rv_ray_place" >"$rv_ray/.address" &&
        mv "$rv_ray/.address" "$rv_ray/address"
}

# rv_ray_clean NUMBER: nothing of this Ray stays on the node but its logs, which go to the run.
rv_ray_clean() {
    local turn
    trap '' TERM INT HUP USR1 USR2
    [ -n "$rv_ray_place" ] || return 0
    # what is started here is not Ray's
    export -n RAY_TMPDIR
    for turn in 1 2 3; do
        # those that Ray started and did not end, wherever they are in the tree by now
        # shellcheck disable=SC2046 # their numbers
        kill -s KILL $(rv_ray_rest) 2>/dev/null || break
        sleep "0.$turn"
    done
    mkdir -p "$rv_ray/logs/node$1" && cp -R "$rv_ray_place"/session_2*/logs/. "$rv_ray/logs/node$1/" 2>/dev/null
    rm -rf "$rv_ray_place"
}

# rv_ray_rest: processes that have this Ray's directory among their variables.
rv_ray_rest() {
    grep -l -s -a -z -x -F -e "RAY_TMPDIR=$rv_ray_place" /proc/[0-9]*/environ |
        sed 's|^/proc/\([0-9]*\)/.*|\1|'
}

# rv_ray_note WORD STAGE: what a stage begins with, or what has come of it, for its record (stage.sh).
# stages.sh says what each stage is; the steps of one are those of a job that is one.
rv_ray_note() {
    rv_ray=${BASH_SOURCE[0]%/*}
    rv_run_dir=$RV_RUN_DIR
    # what goes wrong with a stage is not the end of the run
    rv_entered=$$
    rv_library=$RV_RAY_LIBRARY
    # several stages may be under way
    RV_RUN_DIR=$rv_ray/records/$2
    mkdir -p "$RV_RUN_DIR" || return 1
    # shellcheck source=/dev/null
    . "$RV_RAY_LIBRARY/stage.sh" && . "$rv_ray/stages.sh" "$2" || return 1
    if [ "$1" = begin ]; then
        rv_stage_begin "$RV_RAY_LIBRARY" && rv_ray_tell_stage begun "$2"
    else
        rv_ray_followed && rv_stage_end && rv_ray_tell_stage 'done' "$2"
    fi
}

# rv_ray_tell_stage WORD STAGE: for who asks what has become of the stages of this one job: a line of
# words and stages in turn.  The driver tells one thing at a time.
rv_ray_tell_stage() {
    printf '%s\n' "$(cat "$rv_run_dir/stages" 2>/dev/null) $1 $2" >"$rv_run_dir/.stages" &&
        mv "$rv_run_dir/.stages" "$rv_run_dir/stages"
}

# rv_ray_followed: stages that stream to each other begin at once, so those that this one follows had
# no record of this run then.
rv_ray_followed() {
    local name
    {
        grep -v '^after ' "$RV_RUN_DIR/stage"
        for name in "${rv_stage_after[@]}"; do
            printf 'after %s %s\n' "$(sed -n 's/^run //p' "$RV_PIPELINE_DIR/.rvstate/stages/$name/record")" "$name"
        done
    } >"$RV_RUN_DIR/.stage" && mv "$RV_RUN_DIR/.stage" "$RV_RUN_DIR/stage"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    # shellcheck source=/dev/null
    . "$RV_RAY_LIBRARY/job.sh" || exit 1
    case $1 in
        node) rv_ray_node "$2" "$3" ;;
        begin | end) rv_ray_note "$1" "$2" ;;
        *) exit 64 ;;
    esac
fi
