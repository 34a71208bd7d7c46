#!/bin/sh
# Make what an ssh client needs to be let into a job: keys and settings, no process and no port.
#   main SCRATCH_TEMPLATE HOME RUN PUBLIC_KEY
# Says the paths of the scripts, of the run and of the keys, and the host's public key.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    rv_account "$1" "$2"
    rv_real "$3"
    run=$rv_path
    keys=$rv_scratch/.rv/ssh
    rv_find_library "$run" || return 1
    case $keys$rv_library$run in
        *\'* | *\"* | *"$rv_newline"*)
            rv_fail "a path of this account holds a quote, which sshd's settings cannot" || return 1 ;;
    esac
    [ -d "$keys" ] || mkdir -m 700 "$keys" || return 1
    rv_lock "$keys/lock" 30 || return 1
    host_key && let_in "$4" && settings || return 1
    rv_section host && cat "$keys/host.pub"
    rv_section library && printf '%s' "$rv_library"
    rv_section user && printf '%s' "$rv_user"
    rv_section run && printf '%s' "$run"
    rv_section keys && printf '%s' "$keys"
}

# The private half is put in place first: a run that was killed in between makes both again.
host_key() {
    if [ -s "$keys/host" ] && [ -s "$keys/host.pub" ]; then return 0; fi
    rm -f "$keys/new" "$keys/new.pub" "$keys/host" "$keys/host.pub"
    ssh-keygen -q -t ed25519 -N '' -C rvstate -f "$keys/new" </dev/null >&2 || return 1
    mv -f "$keys/new" "$keys/host" && mv -f "$keys/new.pub" "$keys/host.pub"
}

let_in() {
    if grep -qxF -- "$1" "$keys/authorized_keys" 2>/dev/null; then return 0; fi
    {
        cat "$keys/authorized_keys" 2>/dev/null
        printf '%s\n' "$1"
    } | rv_store "$keys/authorized_keys" 600
}

# StrictModes would refuse any scratch that everybody may write to; the directory itself is private.
settings() {
    wanted=$(
        printf '%s\n' "HostKey \"$keys/host\"" "AuthorizedKeysFile \"$keys/authorized_keys\"" \
            'AuthenticationMethods publickey' 'StrictModes no' 'UsePAM no' 'PidFile none' \
            'PasswordAuthentication no' 'KbdInteractiveAuthentication no' 'UseDNS no' \
            'AllowTcpForwarding yes' 'X11Forwarding no' 'PermitUserRC no' 'PrintMotd no' \
            'PrintLastLog no' 'ClientAliveInterval 30' 'ClientAliveCountMax 4' 'LogLevel ERROR' \
            'Subsystem sftp internal-sftp'
    )
    if [ "$(cat "$keys/sshd_config" 2>/dev/null)" = "$wanted" ]; then return 0; fi
    printf '%s\n' "$wanted" | rv_store "$keys/sshd_config" 600
}
