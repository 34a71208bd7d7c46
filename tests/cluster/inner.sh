#!/bin/bash
# Runs inside the cluster's namespaces only, under several names:
#   ctl boot|start|stop|kill9|pause|cont|check [DAEMON]     reset     homes     heal
#   fault fill|inodes|readonly|drain|down ARGUMENT...       as USER COMMAND...
# NET PORT LOGIN CTL NODES USERS MEMBERS ACCOUNTING HOME_SIZE SCRATCH_SIZE TMP_SIZE
# shellcheck source=/dev/null
. /opt/cluster/env
D=/run/cluster
LOG=/var/log/cluster
MYSQL=(mariadb --defaults-file=/etc/slurm/my.cnf)

launch() { # launch NAME HOSTNAME COMMAND...: own session, own UTS name, pid file, not a child of ours
    local name=$1 host=$2
    shift 2
    # shellcheck disable=SC2016  # expanded by the inner bash
    setsid unshare --uts bash -c 'hostname "$1"; echo $$ >"$2"; shift 2; exec "$@"' _ "$host" "$D/$name.pid" "$@" \
        </dev/null >>"$LOG/$name.log" 2>&1 &
}

node() { # what `unshare --uts --mount` runs for a slurmd: /tmp is the node's own, nvidia-smi is on GPU nodes only
    hostname "$1"
    if grep -q "^NodeName=$1 .*Gres=" /etc/slurm/slurm.conf; then
        mkdir -p "$D/gpu-bin"
        cp -Pn /usr/local/bin/* /opt/cluster/site/nvidia-smi "$D/gpu-bin/"
        mount --bind "$D/gpu-bin" /usr/local/bin
    fi
    mount -t tmpfs -o "size=$TMP_SIZE,mode=1777" tmpfs /tmp
    echo $$ >"$D/slurmd@$1.pid"
    exec slurmd -D -N "$1"
}

wait_for() { # wait_for SECONDS DESCRIPTION COMMAND...
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -ge $end ] && {
            echo "timed out: $what" >&2
            return 1
        }
        sleep 0.02
    done
}

port() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

running() { # running DAEMON: the process of its pid file is there, and is it
    local pid comm
    pid=$(cat "$D/$1.pid" 2>/dev/null) && read -r comm 2>/dev/null <"/proc/$pid/comm" && [ "$comm" = "${1%%@*}" ]
}

gone() { ! running "$1"; }

start() {
    case $1 in
    munged) launch munged "$CTL" setpriv --reuid munge --regid munge --init-groups munged --force -F \
        --key-file=/run/munge-key --num-threads=4 ;;
    mariadbd) launch mariadbd "$CTL" mariadbd --defaults-file=/etc/slurm/my.cnf ;;
    slurmdbd) launch slurmdbd "$CTL" setpriv --reuid slurm --regid slurm --init-groups slurmdbd -D ;;
    slurmctld) launch slurmctld "$CTL" setpriv --reuid slurm --regid slurm --init-groups slurmctld -D ;;
    slurmd@*) setsid unshare --uts --mount /opt/cluster/bin/ctl node "${1#slurmd@}" </dev/null >>"$LOG/$1.log" 2>&1 & ;;
    sshd-*) # argv[0] names the PAM service, so each has its own path
        local host=$LOGIN
        [ "$1" = sshd-bastion ] && host=udc-bastion
        ln -sf /usr/sbin/sshd "/run/sshd/$1"
        launch "$1" "$host" "/run/sshd/$1" -D -e -f "/etc/ssh/cluster/sshd_${1#sshd-}.conf"
        ;;
    cron) launch cron "$LOGIN" cron -f ;;
    *)
        echo "unknown daemon $1" >&2
        return 2
        ;;
    esac
}

answers() { # answers DAEMON: it not only runs but does its work
    case $1 in
    munged) munge -n ;;
    mariadbd) "${MYSQL[@]}" -e "select 1" ;;
    slurmdbd) port 127.0.0.1 "$((PORT + 1))" ;;
    slurmctld) scontrol ping | grep -q "is UP" ;;
    sshd-bastion) port "$NET.3" 2222 ;;
    sshd-login) port "$NET.2" 2222 ;;
    sshd-duo) port "$NET.2" 2223 ;;
    sshd-noisy) port "$NET.2" 2224 ;;
    *) running "$1" ;;
    esac
}

begin() { # begin DAEMON: start it unless it runs, and wait until it answers
    running "$1" || start "$1" || return
    wait_for 20 "$1" answers "$1"
}

send() { # send SIGNAL DAEMON
    running "$2" || {
        echo "$2 is not running" >&2
        return 1
    }
    kill -"$1" "$(cat "$D/$2.pid")"
}

sizes() { # of the file systems, as at the beginning
    mount -o "remount,rw,size=$HOME_SIZE,nr_inodes=200000" /home
    mount -o "remount,rw,size=$SCRATCH_SIZE,nr_inodes=400000" /scratch
    mount -o remount,rw,size=512m,nr_inodes=200000 /standard
}

homes() { # (re)make every user's files
    local u dirs=()
    for u in $USERS; do dirs+=("/home/$u" "/scratch/$u"); done
    rm -rf "${dirs[@]}" /standard/*
    mkdir -m 700 "${dirs[@]}"
    for u in $USERS; do
        cp -r /opt/cluster/skel/. "/home/$u"
        [ "$u" = noi5ey ] && cat /opt/cluster/noisy.bashrc >>/home/noi5ey/.bashrc
        chown -R "$u:$u" "/home/$u" "/scratch/$u"
    done
    for g in mygroup othergroup; do
        mkdir "/standard/$g"
        chgrp "$g" "/standard/$g"
        chmod 2770 "/standard/$g"
    done
}

step() { printf '%8.2f s  %s\n' "$(awk -v a="$EPOCHREALTIME" -v b="$BOOT" 'BEGIN { print a - b }')" "$*"; }

database() {
    if [ ! -d /var/lib/cluster-mysql/mysql ]; then
        mariadb-install-db --defaults-file=/etc/slurm/my.cnf --user=slurm --skip-test-db \
            --auth-root-authentication-method=normal >$LOG/install-db.log 2>&1 || {
            tail $LOG/install-db.log
            return 1
        }
        begin mariadbd && begin munged && begin slurmdbd && seed >$LOG/seed.log 2>&1 || return 1
        step "accounts made"
        # a stopped server's files, kept for next time
        stop slurmdbd && stop mariadbd || return 1
        tar -cpf $D/state/mysql.tar.new -C /var/lib/cluster-mysql . && mv $D/state/mysql.tar.new $D/state/mysql.tar
        step "database kept for next time"
    fi
    begin mariadbd && begin munged && begin slurmdbd || return 1
    step "database"
}

idle() { [ "$(sinfo -h -N -t idle -o %N | sort -u | wc -l)" = "$(wc -w <<<"$NODES")" ]; }

boot() {
    local n
    BOOT=$EPOCHREALTIME
    start munged
    for n in login duo noisy bastion; do start sshd-$n; done
    start cron
    [ "$ACCOUNTING" = 0 ] || database || return 1
    begin munged || return 1
    start slurmctld
    for n in $NODES; do start "slurmd@$n"; done
    begin slurmctld || return 1
    step slurmctld
    wait_for 30 'nodes idle' idle || {
        sinfo -N
        return 1
    }
    for n in login duo noisy bastion; do begin sshd-$n || return 1; done
    step "nodes idle, sshd listening"
}

seed() {
    local add=(sacctmgr -iQ add)
    "${add[@]}" cluster rivanna || return 1
    "${add[@]}" account mygroup,othergroup Organization=uva || return 1
    "${add[@]}" user "${MEMBERS// /,}" Account=mygroup DefaultAccount=mygroup || return 1
    "${add[@]}" user abc1de Account=othergroup
}

stop() { send TERM "$1" && wait_for 20 "$1 to end" gone "$1"; }

heal() { # undo every fault: daemons, nodes, file systems
    local d daemons=(munged slurmctld cron sshd-login sshd-duo sshd-noisy sshd-bastion)
    [ "$ACCOUNTING" = 0 ] || daemons=(munged mariadbd slurmdbd "${daemons[@]:1}")
    for d in $NODES; do daemons+=("slurmd@$d"); done
    for d in "${daemons[@]}"; do
        if running "$d"; then
            kill -CONT "$(cat "$D/$d.pid")"
        else
            begin "$d" || return 1
        fi
    done
    sizes
    rm -f $D/duo-push-seconds
    resume
}

resume() {
    local bad n
    for _ in 1 2 3; do # a node that was just started may be set down once more when it registers
        bad=$(sinfo -h -N -t drain,down,fail -o %N | sort -u)
        [ -z "$bad" ] && return
        for n in $bad; do scontrol update nodename="$n" state=resume; done
        sleep 0.2
    done
}

reset() {
    local ids u
    heal || return 1
    rm -f /var/spool/cron/crontabs/* /var/spool/cluster-mail/*
    for u in $(squeue -h -o %u | sort -u); do scrontab -u "$u" -r 2>/dev/null; done
    ids=$(squeue -h -o %A | sort -u)
    # shellcheck disable=SC2086  # a list of numbers
    [ -n "$ids" ] && {
        scancel -Q $ids
        scancel -Q -f -s KILL $ids
    }
    # shellcheck disable=SC2016
    wait_for 15 'no jobs' bash -c '[ -z "$(squeue -h)" ]' || {
        squeue
        return 1
    }
    strays
    resume
    homes
}

strays() { # end what users left running, but not the connections themselves: tests may keep a master
    local ids
    ids=$(ps -o pid=,comm= -u "${USERS// /,}" | awk '$2 !~ /^sshd-/ { print $1 }')
    # shellcheck disable=SC2086  # a list of numbers
    [ -z "$ids" ] || kill -KILL $ids 2>/dev/null
    return 0 # what has ended by itself meanwhile is as good
}

fault() {
    local used
    case $1 in
    fill) # fill MOUNT [LEFT]: nothing but LEFT bytes is free there
        used=$(df -B1 --output=used "$2" | tail -1)
        mount -o "remount,size=$((used + $(numfmt --from=iec "${3:-0}") + 4096))" "$2"
        ;;
    inodes) # inodes MOUNT [LEFT]
        used=$(df --output=iused "$2" | tail -1)
        mount -o "remount,nr_inodes=$((used + ${3:-0}))" "$2"
        ;;
    readonly) mount -o remount,ro "$2" ;;
    drain) scontrol update nodename="$2" state=drain reason="${3:-fault}" ;;
    down) send KILL "slurmd@$2" && scontrol update nodename="$2" state=down reason="${3:-fault}" ;;
    *)
        echo "fault: what?" >&2
        return 2
        ;;
    esac
}

case ${0##*/} in
reset | homes | heal)
    "${0##*/}"
    exit
    ;;
fault)
    fault "$@"
    exit
    ;;
as) # setpriv, not su: no PAM, no terminal; a login shell so that /etc/profile.d counts
    u=$1
    shift
    printf -v q '%q ' "$@"
    mapfile -t vars </etc/environment
    cd "/home/$u" || exit
    exec setpriv --reuid "$u" --regid "$u" --init-groups env -i "${vars[@]}" HOME="/home/$u" USER="$u" LOGNAME="$u" \
        TERM=dumb bash -lc "$q"
    ;;
esac
case $1 in
boot) boot ;;
node) node "$2" ;;
start) begin "$2" ;;
stop) stop "$2" ;;
kill9) send KILL "$2" && wait_for 5 "$2 to end" gone "$2" ;;
pause) send STOP "$2" ;;
cont) send CONT "$2" ;;
check) answers "$2" >/dev/null ;;
*)
    echo "ctl: what?" >&2
    exit 2
    ;;
esac
