#!/bin/bash
# The steps of a job of several nodes: what is started on each, and how they end together.  Sourced
# behind job.sh by the batch script, which runs on the first node; srun runs the same file on all:
#   launch.sh ENV_FILE COMMAND...
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # rv_* come from job.sh, or are read there

# rv_nodes NODES RANKS WAIT: names and numbers that programs on several nodes need.  RANKS: programs
# that share a node.  WAIT: seconds that a node may go on after another has ended without an error.
rv_nodes() {
    if [ "${SLURM_JOB_NUM_NODES:-0}" != "$1" ]; then
        rv_give_up "the job was made for $1 nodes and has ${SLURM_JOB_NUM_NODES:-none}"
    fi
    RV_NODES=$1
    RV_RANKS=$2
    rv_wait=$3
    RV_LOG=${rv_log%.err}
    mapfile -t rv_names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    [ "${#rv_names[@]}" = "$1" ] || rv_give_up "Slurm does not say which nodes the job has"
    MASTER_ADDR=${rv_names[0]}
    # `8(x2),4`: nodes may differ, and every one must be able to do it
    rv_cpus=$(printf '%s' "${SLURM_JOB_CPUS_PER_NODE:-1}" | tr ',' '\n' | sed 's/(.*//' | sort -n | head -n 1)
    OMP_NUM_THREADS=$((rv_cpus > RV_RANKS ? rv_cpus / RV_RANKS : 1))
    # torchrun reads these where its command line does not say otherwise
    PET_NNODES=$1
    PET_MASTER_ADDR=$MASTER_ADDR
    export RV_NODES RV_RANKS RV_LOG MASTER_ADDR OMP_NUM_THREADS PET_NNODES PET_MASTER_ADDR
    rv_visiting && return 0
    rv_reached
    if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then rm -f "$RV_RUN_DIR"/clock; fi
    rm -f "$RV_RUN_DIR/failed" "$RV_RUN_DIR"/ended.*
    rv_clock &
    rv_clock_child=$!
}

# Whom Slurm signals: the program that srun started (RV_SIGNALLED=first), or all that came of it.
rv_reached() {
    RV_SIGNALLED=first
    if scontrol show config 2>/dev/null |
        grep -q -i -e 'ProctrackType *= *proctrack/linuxproc' -e 'SignalChildrenProcesses *= *yes'; then
        RV_SIGNALLED=all
    fi
    export RV_SIGNALLED
}

# Which log had how many bytes when: `rvstate logs` puts the nodes' lines in order by it.  One
# process for all, and some forty files a second at most.
rv_clock() {
    local -A known=()
    local tick=0 size path pause=$((RV_NODES * 5))
    trap - TERM INT HUP USR1 USR2
    [ "$pause" -ge 25 ] || pause=25
    while :; do
        tick=$((tick + 1))
        while read -r size path; do
            [ "$size" != "${known[$path]:-0}" ] || continue
            known[$path]=$size
            printf '%s %s %s\n' "$tick" "$size" "${path#"$RV_LOG".}"
        done < <(stat -c '%s %n' "$RV_LOG".out "$RV_LOG".err "$RV_LOG".node*.out "$RV_LOG".node*.err 2>/dev/null)
        # long jobs write a shorter record
        [ "$tick" != 1200 ] || pause=$((pause < 200 ? 200 : pause))
        sleep "$((pause / 100)).$(printf '%02d' $((pause % 100)))"
    done >>"$RV_RUN_DIR/clock"
}

# rv_launch START COMMAND...: start it on all nodes; START is node (once on each) or rank.
rv_launch() {
    RV_START=$1
    shift
    export RV_START
    [ "$RV_START" = rank ] || rv_launchers
    rv_deliver=rv_to_nodes
    # the user's variables act on the user's program only, so not on srun
    rv_await rv_on_all "$rv_env_file" "$@"
    kill "$rv_clock_child" 2>/dev/null
    rv_blame
    rv_end "$rv_status"
}

# rv_launch_once COMMAND...: start it here; it starts what it wants on the other nodes.
rv_launch_once() {
    local before
    before=$(rv_log_size)
    rv_for_srun "$@"
    rv_await rv_become "$@"
    kill "$rv_clock_child" 2>/dev/null
    if [ "$rv_status" -ne 0 ] && rv_is_srun "$@"; then rv_blame_srun "$before"; fi
    rv_end "$rv_status"
}

# rv_is_srun COMMAND...: whether the command itself is an srun, behind variables or not.
rv_is_srun() {
    while [ "$1" = env ] || [[ $1 == *=* ]]; do shift; done
    [ "$1" = srun ]
}

# rv_blame_srun BYTES: the first program of the user's srun that failed gives the job its exit code;
# srun's own is the highest, and may be of those that were ended for it.  srun says which it was,
# behind that many bytes of the job's error log.
rv_blame_srun() {
    local host code at
    read -r host code < <(rv_log_behind "$1" | sed -n -E \
        's/^srun: error: ([^:]*): tasks? [^:]*: Exited with exit code ([0-9]+)$/\1 \2/p' | head -n 1)
    [ -n "${code:-}" ] || return 0
    rv_status=$code
    for ((at = 0; at < RV_NODES; at++)); do
        [ "${rv_names[$at]}" != "$host" ] || host="node$at ($host)"
    done
    printf 'rvstate: %s failed first, with exit code %s; the other programs were ended\n' "$host" "$code" >&2
}

# rv_for_srun COMMAND...: what the user's own srun takes from its variables; ranks for its programs.
rv_for_srun() {
    SLURM_TASK_PROLOG=$RV_RUN_DIR/ranks.sh
    # shellcheck disable=SC2016 # for the tasks to expand
    printf '%s\n' '#!/bin/sh' 'echo "export RANK=$SLURM_PROCID"' \
        'echo "export LOCAL_RANK=$SLURM_LOCALID"' 'echo "export WORLD_SIZE=$SLURM_NTASKS"' \
        >"$SLURM_TASK_PROLOG" && chmod 700 "$SLURM_TASK_PROLOG"
    SLURM_KILL_BAD_EXIT=1
    SLURM_WAIT=$rv_wait
    export SLURM_TASK_PROLOG SLURM_KILL_BAD_EXIT SLURM_WAIT
    # since 22.05 srun does not take this from sbatch by itself
    [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
    rv_is_srun "$@" && [ "$RV_NODES" -gt 1 ] || return 0
    SLURM_OPEN_MODE=a
    SLURM_STDOUTMODE=${RV_LOG//%/%%}.node%n.out
    SLURM_STDERRMODE=${RV_LOG//%/%%}.node%n.err
    export SLURM_OPEN_MODE SLURM_STDOUTMODE SLURM_STDERRMODE
}

# rv_on_all ENV_FILE COMMAND...: becomes the srun that starts this file on all nodes.
rv_on_all() {
    local tasks=1 cpus=$rv_cpus more=()
    if [ "$RV_START" = rank ]; then
        tasks=$RV_RANKS
        cpus=$((rv_cpus > tasks ? rv_cpus / tasks : 1))
        [ "$rv_cpus" -ge "$tasks" ] || more=(--overcommit)
    fi
    exec srun --nodes="$RV_NODES" --ntasks="$((RV_NODES * tasks))" --ntasks-per-node="$tasks" \
        --cpus-per-task="$cpus" --distribution=block --kill-on-bad-exit=1 --wait="$rv_wait" \
        "${more[@]}" bash "${BASH_SOURCE[0]}" "$@"
}

# rv_to_nodes SIGNAL: to the programs on all nodes.  srun passes on the signals of users; to TERM and
# the like it would answer by ending all at once, so Slurm is asked.
rv_to_nodes() {
    case $1 in
        USR1 | USR2)
            # who listens on the other nodes is not known here
            rv_listened=yes
            kill -s "$1" "$rv_child" 2>/dev/null
            ;;
        *) scancel --signal="$1" "$RV_JOB_ID.0" 2>/dev/null || kill -s "$1" "$rv_child" 2>/dev/null ;;
    esac
}

# The first program that failed gives the job its exit code, and its node is named; so is a node that
# Slurm has lost, for the programs of the other nodes fail by that.
rv_blame() {
    local code node late='' lost at
    for ((at = 0; at < RV_NODES; at++)); do
        [ "$(rv_ended "$at")" = "$([ "$RV_START" = rank ] && echo "$RV_RANKS" || echo 1)" ] ||
            late="$late node$at (${rv_names[$at]})"
    done
    lost=$([ -z "$late" ] || rv_lost)
    [ -z "$lost" ] || printf 'rvstate:%s failed: Slurm counts it as down\n' "$lost" >&2
    if [ -s "$RV_RUN_DIR/failed" ]; then
        read -r code node _ <"$RV_RUN_DIR/failed"
        rv_status=$code
        [ -n "$lost" ] || printf 'rvstate: node%s (%s) failed first, with exit code %s; the other nodes were ended\n' \
            "$node" "${rv_names[$node]}" "$code" >&2
    elif [ -n "$lost" ]; then
        [ "$rv_status" -ne 0 ] || rv_status=1
    elif [ -n "$late" ] && grep -q -s itself "$RV_RUN_DIR"/ended.*; then
        printf 'rvstate:%s went on for %s s after the others had ended, and was ended\n' "$late" "$rv_wait" >&2
        rv_status=124
    elif [ -n "$late" ]; then
        [ "$rv_status" -ne 0 ] || rv_status=1
        printf 'rvstate:%s was ended from outside (exit code %s)%s\n' "$late" "$rv_status" \
            "$([ "$rv_status$rv_terminated" != 137 ] || echo ': out of memory, most often')" >&2
    fi
}

# rv_lost: those of the job's nodes that are down, or do not answer (sinfo(1), NODE STATE CODES).
rv_lost() {
    local at name state names
    names=$(IFS=, && printf '%s' "${rv_names[*]}")
    timeout 10 sinfo --noheader --Node --nodes="$names" --format='%N %t' 2>/dev/null | sort -u |
        while read -r name state; do
            case $state in down* | *\**) ;; *) continue ;; esac
            for ((at = 0; at < RV_NODES; at++)); do
                [ "${rv_names[$at]}" != "$name" ] || printf ' node%s (%s)' "$at" "$name"
            done
        done
}

rv_ended() {
    local found=()
    mapfile -t found < <(compgen -G "$RV_RUN_DIR/ended.$1.*")
    echo "${#found[@]}"
}

# rv_launchers: accelerate and deepspeed take no variables, so these stand in front of them and add
# the options that the user did not give; as functions too, for lines that put their own PATH in front.
# On one node, without rv_nodes, that is the port, so that two jobs on it do not meet.
rv_launchers() {
    local name
    mkdir -p "$RV_RUN_DIR/launchers" || rv_give_up "cannot write to $RV_RUN_DIR"
    for name in accelerate deepspeed; do
        printf '#!/bin/bash\n. %q && rv_launcher_%s "$@"\n' "${BASH_SOURCE[0]}" "$name" \
            >"$RV_RUN_DIR/launchers/$name" && chmod 700 "$RV_RUN_DIR/launchers/$name"
    done
    for name in "${rv_names[@]}"; do
        printf '%s slots=%s\n' "$name" "$RV_RANKS"
    done >"$RV_RUN_DIR/hostfile"
    PATH=$RV_RUN_DIR/launchers:$PATH
    # shellcheck disable=SC2329 # bash calls these by name
    accelerate() { "$RV_RUN_DIR/launchers/accelerate" "$@"; }
    # shellcheck disable=SC2329
    deepspeed() { "$RV_RUN_DIR/launchers/deepspeed" "$@"; }
    export -f accelerate deepspeed
}

# rv_given NAME WORDS...: whether a launcher's options have --NAME, with dashes or underscores.  What
# stands behind the script is the script's own; an option that is followed by a word takes it, unless
# that is the script.
rv_given() {
    local name=${1//_/-} word
    shift
    while [ $# -gt 0 ]; do
        word=$1
        shift
        case $word in
            -m | --module) return 1 ;;
            --*=*) word=${word%%=*} ;;
            -*) case ${1:--} in -* | *.py) ;; *) shift ;; esac ;;
            *) return 1 ;;
        esac
        [ "${word//_/-}" != "--$name" ] || return 0
    done
    return 1
}

# rv_really NAME WORDS...: the program of that name behind ours.
rv_really() {
    local name=$1
    shift
    PATH=${PATH//"$RV_RUN_DIR/launchers:"/}
    exec "$name" "$@"
}

# rv_accelerate_kind WORDS...: whether the options, or accelerate's file of answers, say how programs
# find each other.  Without a word, and with one GPU on a node, accelerate starts each as the only one.
rv_accelerate_kind() {
    local kind
    for kind in multi_gpu cpu tpu use_deepspeed use_fsdp use_megatron_lm config_file; do
        ! rv_given "$kind" "$@" || return 0
    done
    kind=$(sed -n 's/^distributed_type: *//p' "${HF_HOME:-$HOME/.cache/huggingface}/accelerate/default_config.yaml" 2>/dev/null)
    case $kind in '' | *NO* | *MULTI_CPU*) return 1 ;; esac
}

rv_launcher_accelerate() {
    local added=()
    [ "${1:-}" = launch ] && [ -n "${RV_NODES:-}" ] || rv_really accelerate "$@"
    shift
    rv_given num_machines "$@" || added+=(--num_machines "$RV_NODES")
    rv_given num_processes "$@" || added+=(--num_processes "$((RV_NODES * RV_RANKS))")
    rv_given machine_rank "$@" || added+=(--machine_rank "$NODE_RANK")
    rv_given main_process_ip "$@" || added+=(--main_process_ip "$MASTER_ADDR")
    rv_given main_process_port "$@" || added+=(--main_process_port "$MASTER_PORT")
    rv_accelerate_kind "$@" || added+=(--multi_gpu)
    rv_given deepspeed_multinode_launcher "$@" || added+=(--deepspeed_multinode_launcher standard)
    rv_really accelerate launch "${added[@]}" "$@"
}

rv_launcher_deepspeed() {
    local added=()
    if [ -n "${RV_NODES:-}" ]; then
        added=(--hostfile "$RV_RUN_DIR/hostfile" --no_ssh)
        rv_given node_rank "$@" || added+=(--node_rank "$NODE_RANK")
        rv_given master_addr "$@" || added+=(--master_addr "$MASTER_ADDR")
    fi
    rv_given master_port "$@" || added+=(--master_port "$MASTER_PORT")
    rv_really deepspeed "${added[@]}" "$@"
}

# rv_on_node ENV_FILE COMMAND...: what srun runs on each node, once for each program.
rv_on_node() {
    local status
    rv_env_file=$1
    shift
    # of a stage (stage.sh)
    eval "rv_stage_variables=(${RV_STAGE_VARIABLES:-})"
    NODE_RANK=$SLURM_NODEID
    PET_NODE_RANK=$SLURM_NODEID
    export NODE_RANK PET_NODE_RANK
    rv_node_logs
    if [ "$RV_START" = rank ]; then
        RANK=$SLURM_PROCID
        LOCAL_RANK=$SLURM_LOCALID
        WORLD_SIZE=$SLURM_NTASKS
        LOCAL_WORLD_SIZE=$RV_RANKS
        SLURM_NTASKS_PER_NODE=$RV_RANKS
        export RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE SLURM_NTASKS_PER_NODE
    fi
    rv_kept=()
    rv_deliver=rv_to_programs
    rv_ending=
    rv_await rv_node_program "$@"
    status=$rv_status
    if [ "$status" -ne 0 ] && [ -z "$rv_ending" ]; then
        # of several only the first can make this file
        (set -o noclobber && printf '%s %s\n' "$status" "$SLURM_NODEID" >"$RV_RUN_DIR/failed") 2>/dev/null
    fi
    rv_drain
    printf '%s\n' "${rv_ending:-itself}" >"$RV_RUN_DIR/ended.$SLURM_NODEID.$SLURM_LOCALID"
    exit "$status"
}

# Where the programs of this node write.  Programs that share a log would tear each other's lines, so
# each of several has a process that writes whole ones.
rv_node_logs() {
    local log=$RV_LOG.node$SLURM_NODEID
    rv_pumps=()
    exec </dev/null
    if [ "$RV_START" != rank ] || [ "$RV_RANKS" = 1 ]; then
        exec >>"$log.out" 2>>"$log.err"
        return
    fi
    exec > >(rv_pump "$log.out")
    rv_pumps+=("$!")
    exec 2> >(rv_pump "$log.err")
    rv_pumps+=("$!")
}

rv_pump() {
    # a program that is told to end may still have something to say
    trap '' TERM INT HUP USR1 USR2
    exec sed -u '' >>"$1" 2>/dev/null
}

# rv_drain: wait for the last lines, but not for ever: what the program left behind may hold its log.
rv_drain() {
    local turn
    exec >/dev/null 2>&1
    for turn in 1 1 1 2 2 3 5 5; do
        kill -0 "${rv_pumps[@]}" 2>/dev/null || return 0
        sleep "0.$turn"
    done
}

# rv_node_program COMMAND...: becomes the user's program.
rv_node_program() {
    # a launcher would die of these; the programs that it starts may wait for them
    [ "$RV_START" = rank ] || trap '' USR1 USR2
    rv_become "$@"
}

# rv_to_programs SIGNAL: to the user's programs of this node; launchers hand on those that end.
rv_to_programs() {
    case $1 in USR1 | USR2) ;; *) rv_ending=yes ;; esac
    # twice is once too often for a program that saves and ends
    [ "$RV_SIGNALLED" = first ] || return 0
    case $1:$RV_START in
        USR?:node) rv_to_ranks "$1" ;;
        *) rv_to_child "$1" ;;
    esac
}

# rv_to_ranks SIGNAL: to the programs that a launcher has started with a rank, not to their children.
rv_to_ranks() {
    local file pid parent ranks=' '
    while read -r file; do
        pid=${file#/proc/}
        pid=${pid%/environ}
        if grep -q -s -a -z -x -e 'LOCAL_RANK=[0-9]*' "$file" &&
            grep -q -s -a -z -x -F -e "SLURM_NODEID=$SLURM_NODEID" "$file"; then
            ranks="$ranks$pid "
        fi
    done < <(grep -l -s -a -z -x -F -e "RV_RUN_DIR=$RV_RUN_DIR" /proc/[0-9]*/environ)
    for pid in $ranks; do
        parent=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$pid/status" 2>/dev/null)
        case $ranks in *" $parent "*) ;; *) kill -s "$1" "$pid" 2>/dev/null ;; esac
    done
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    # shellcheck source=/dev/null
    . "${0%/*}/job.sh" || exit 1
    rv_on_node "$@"
fi
