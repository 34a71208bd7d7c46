#!/bin/sh
# in-tree.sh TREE COMMAND...
# Runs COMMAND with TREE as its root file system.  Call it in a mount namespace of its own (unshare
# --mount, plus --user --map-root-user without root), so that what it binds goes with the command.
set -eu
tree=$1
shift
mount --rbind /dev "$tree/dev"
mount --rbind /proc "$tree/proc"
exec env -i PATH=/usr/sbin:/usr/bin HOME=/ LC_ALL=C.UTF-8 chroot "$tree" "$@"
