#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# Our send streams received by a real ZFS, and its own streams read back by us.
# zfs-fuse is ZFS of 2010 (pool version 23) in a process: no kernel module, and
# it refuses every feature flag that came later.
#
#   zfs-fuse.sh IMGFORGE [ROOT]
#
# ROOT is where Debian's packages zfs-fuse and libfuse2 are unpacked, when they
# are not installed. Needs root. Prints one line per check in TAP form; exit
# status 1 if any check fails.
set -u
# shellcheck source=../tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=volumes.sh
. "$(dirname "$0")/volumes.sh"

imgforge=$(realpath "${1:?usage: zfs-fuse.sh IMGFORGE [ROOT]}")
root=${2:+$(realpath "$2")}
if [ "${INSIDE:-}" != 1 ]; then
    # Sockets and pool caches of its own.
    INSIDE=1 exec unshare --mount -- "$0" "$@"
fi
export PATH=${root:-}/sbin:${root:-}/usr/sbin:$PATH
export LD_LIBRARY_PATH=${root:-}/lib/x86_64-linux-gnu:${root:-}/usr/lib/x86_64-linux-gnu
work=$(mktemp -d)
# Its directories lie on file systems that end with this script.
for place in /run /var/lib; do
    mount -t tmpfs none "$place" || exit 2
done
mkdir -p /run/zfs /run/lock /var/lib/zfs
cd "$work" || exit 2
leave() {
    # It holds nothing that matters, and takes long to leave when asked.
    kill -KILL "$daemon" 2>/dev/null
    cd / && rm -rf "$work"
}
zfs-fuse -n --no-kstat-mount >daemon.log 2>&1 &
daemon=$!
trap leave EXIT
truncate -s 1G pool
ready=1
for _ in $(seq 100); do
    # The first attempt may fail although it makes the pool.
    zpool create -m none zones "$work/pool" 2>create.log
    zpool list zones >/dev/null 2>&1 && ready=0 && break
    sleep 0.1
done
[ "$ready" = 0 ] || { echo "zfs-fuse.sh: no pool: $(cat create.log daemon.log)" >&2; exit 2; }


# A disk with noise, text and holes, of an odd number of MiB.
truncate -s 37M disk.raw
dd if=/dev/urandom of=disk.raw bs=64K count=60 seek=20 conv=notrunc status=none
yes 'some text' | dd of=disk.raw bs=8K count=300 seek=2500 iflag=fullblock conv=notrunc status=none
printf end | dd of=disk.raw bs=1 seek=$((37 * 1024 * 1024 - 3)) conv=notrunc status=none

dump() { # exit status says nothing
    zstreamdump <"$1" >dump.log 2>&1
    if grep -Ei 'invalid checksum|incorrect checksum|differs from' dump.log; then return 1; fi
    grep -q 'Total DRR_END records = 1$' dump.log
}

for block in 512 8192 131072; do
    name=b$block
    check "volblocksize $block: written" \
        "$imgforge" convert disk.raw "$name.zfs.gz" --volblocksize $block --no-progress
    gzip -dc $name.zfs.gz >$name.zfs
    check "volblocksize $block: zstreamdump finds it whole" dump $name.zfs
    check "volblocksize $block: received" receive $name.zfs.gz $name
    check "volblocksize $block: block size" is $name volblocksize $block
    check "volblocksize $block: volume size" is $name volsize $((37 * 1024 * 1024))
    check "volblocksize $block: guid" is "$name@final" guid "$(field $name.zfs guid)"
    check "volblocksize $block: creation" is "$name@final" creation "$(field $name.zfs creation)"
    zfs send zones/$name@final >sent.zfs
    check "volblocksize $block: sent by ZFS, read by us" same sent.zfs
    zfs send -p zones/$name@final >sent.zfs
    check "volblocksize $block: sent with properties" same sent.zfs
    zfs send -R zones/$name@final >sent.zfs
    check "volblocksize $block: sent as a replica" same sent.zfs
    head -c $(($(stat -c %s $name.zfs) - 400)) $name.zfs >cut.zfs
    check "volblocksize $block: a cut stream is refused by both" \
        bash -c "! zfs receive zones/cut <cut.zfs && ! '$imgforge' stream info cut.zfs"
done
zpool scrub zones
for _ in $(seq 300); do
    zpool status zones | grep -q 'scrub in progress' || break
    sleep 0.1
done
check "the pool is clean" bash -c "zpool status zones | tee /dev/stderr | grep -q 'No known data errors'"
conclude
