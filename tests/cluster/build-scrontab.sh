#!/bin/bash
# build-scrontab.sh DIR
# Debian's slurm-client leaves out scrontab(1), though slurmctld and libslurmfull have all it talks to.
# Runs inside the tree.  DIR holds the unpacked .orig.tar of the very version installed, since client
# and library share structures that change between releases; the result is DIR/scrontab.
set -euo pipefail
dir=$1
cd "$dir"/slurm-*/
# configure only finds out what the headers need; optimising or tracking dependencies would only cost time
CFLAGS=-O0 ./configure --prefix=/usr --sysconfdir=/etc/slurm --disable-debug --without-rpath \
    --disable-dependency-tracking --without-hdf5 --without-lua --disable-gtktest --disable-x11 \
    >"$dir/configure.log" 2>&1
cd src/scrontab
for f in default_crontab usage; do
    ld -r -o $f.bino -z noexecstack --format=binary $f.txt
    objcopy --rename-section .data=.rodata,alloc,load,readonly,data,contents $f.bino
done
lib=/usr/lib/$(gcc -dumpmachine)/slurm-wlm
gcc -O2 -w -I../.. -I../../slurm -o "$dir/scrontab" scrontab.c env.c opt.c parse.c \
    default_crontab.bino usage.bino -L"$lib" -lslurmfull -Wl,-rpath,"$lib"
