#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# Our send streams received by OpenZFS in a kernel, by imgadm's and vmadm's
# sequence, and the streams of its own senders read back by us.
#
#   openzfs.sh IMGFORGE TOOLS
#
# TOOLS is where zfs(8), zpool(8) and their libraries are unpacked. Runs in the
# lab machine. Prints one line per check in TAP form; exit status 1
# if any check fails.
set -u
# shellcheck source=../tap.sh
. "$(dirname "$0")/../tap.sh"
# shellcheck source=volumes.sh
. "$(dirname "$0")/volumes.sh"

imgforge=$(realpath "${1:?usage: openzfs.sh IMGFORGE TOOLS}")
tools=$(realpath "${2:?usage: openzfs.sh IMGFORGE TOOLS}")
export PATH=$tools/sbin:$tools/usr/sbin:$PATH:/usr/sbin:/sbin
export LD_LIBRARY_PATH=$tools/lib/x86_64-linux-gnu:$tools/usr/lib/x86_64-linux-gnu
cd /mnt/scratch || exit 2
modprobe zfs || exit 2
truncate -s 2G pool
zpool create -m none zones "$PWD/pool" || exit 2

# A disk with noise, text, short blocks that compress into a block pointer, and holes.
mib=67
truncate -s ${mib}M disk.raw
dd if=/dev/urandom of=disk.raw bs=64K count=60 seek=20 conv=notrunc status=none
yes 'some text' | dd of=disk.raw bs=8K count=300 seek=2500 iflag=fullblock conv=notrunc status=none
for block in $(seq 3000 7 3400); do
    printf 'block %s' "$block" | dd of=disk.raw bs=8K seek="$block" conv=notrunc status=none
done
printf end | dd of=disk.raw bs=1 seek=$((mib * 1024 * 1024 - 3)) conv=notrunc status=none
sum=$(sha256sum <disk.raw)

reserves() { # DATASET: at least its size
    value=$(zfs get -H -p -o value refreservation "zones/$1") || return 1
    [ "$value" -ge $((512 * 1024 * 1024)) ] || { echo "refreservation is $value"; return 1; }
}
device() { # DATASET: there is no udev that would make links
    for device in /dev/zd*; do
        [ "$("$tools/lib/udev/zvol_id" "$device")" = "zones/$1" ] && echo "$device" && return
    done
    echo "no device of zones/$1" >&2
    return 1
}
content() { # DATASET: begins with the disk, and has zeros behind it
    path=$(device "$1") || return 1
    [ "$(head -c ${mib}M "$path" | sha256sum)" = "$sum" ] || { echo "other content"; return 1; }
    rest=$(($(blockdev --getsize64 "$path") - mib * 1024 * 1024))
    tail -c +$((mib * 1024 * 1024 + 1)) "$path" | cmp -n "$rest" - /dev/zero
}
clone() { # as vmadm does
    zfs clone -o volsize=512M -o refreservation=auto "zones/$1@final" "zones/$1-vm"
}
refused() { # STREAM WORD: by us, with that word in the message
    rm -f back.raw
    if "$imgforge" convert "$1" back.raw --from zfs --no-progress 2>refusal; then
        echo "it was read"
        return 1
    fi
    cat refusal
    [ ! -e back.raw ] && grep -qi -- "$2" refusal
}
sent() { # TEXT ARGUMENTS...: a stream of the real sender
    text=$1
    shift
    zfs send "$@" >sent.zfs || exit 2
    check "$text: read back" same sent.zfs
}

echo "# OpenZFS $(cat /sys/module/zfs/version), Linux $(uname -r)"
for block in 4096 8192 131072; do
    name=b$block
    check "volblocksize $block: written" \
        "$imgforge" convert disk.raw "$name.zfs.gz" --volblocksize $block --no-progress
    check "volblocksize $block: received as imgadm does" receive $name.zfs.gz $name
    check "volblocksize $block: block size" is $name volblocksize $block
    check "volblocksize $block: volume size" is $name volsize $((mib * 1024 * 1024))
    check "volblocksize $block: nothing reserved" is $name refreservation 0
    gzip -dc $name.zfs.gz >$name.zfs
    check "volblocksize $block: guid" is "$name@final" guid "$(field $name.zfs guid)"
    check "volblocksize $block: cloned as vmadm does, and grown" clone $name
    check "volblocksize $block: the clone reserves its space" reserves $name-vm
    check "volblocksize $block: the clone has the disk's content" content $name-vm
    sent "volblocksize $block, zfs send" zones/$name@final
    sent "volblocksize $block, zfs send -p" -p zones/$name@final
    sent "volblocksize $block, zfs send -R" -R zones/$name@final
done

# Volumes whose streams need features.
for kind in lz4 gzip; do
    zfs create -s -V ${mib}M -o volblocksize=16K -o compression=$kind zones/$kind || exit 2
    path=$(device $kind) || exit 2
    dd if=disk.raw of="$path" bs=1M conv=fsync status=none || exit 2
    zfs snapshot zones/$kind@final
    for options in -L -e -c -Lec -Lecp; do
        sent "compression $kind, zfs send $options" $options zones/$kind@final
    done
done
check "embedded data was in one of them" bash -c \
    "zfs send -e zones/lz4@final | '$imgforge' stream info - | grep WRITE_EMBEDDED"
echo 1048576 >/sys/module/zfs/parameters/zfs_max_recordsize
if zfs create -s -V ${mib}M -o volblocksize=1M zones/large 2>large.log; then
    path=$(device large) || exit 2
    dd if=disk.raw of="$path" bs=1M conv=fsync status=none || exit 2
    zfs snapshot zones/large@final
    sent "1 MiB blocks, zfs send" zones/large@final
    sent "1 MiB blocks, zfs send -L" -L zones/large@final
else
    echo "# no volume with blocks of 1 MiB: $(cat large.log)"
fi

# What we do not read is refused by name, and leaves nothing.
zfs snapshot zones/lz4@later
zfs send -i @final zones/lz4@later >sent.zfs
check "an incremental stream is refused" refused sent.zfs incremental
zfs create zones/files
zfs snapshot zones/files@one
zfs send zones/files@one >sent.zfs
check "a file system's stream is refused" refused sent.zfs 'file system'
zfs create -s -V ${mib}M -o volblocksize=16K -o compression=zstd zones/zstd
path=$(device zstd) || exit 2
dd if=disk.raw of="$path" bs=1M conv=fsync status=none
zfs snapshot zones/zstd@final
sent "compression zstd, zfs send" zones/zstd@final
zfs send -c zones/zstd@final >sent.zfs
check "a stream compressed by zstd is refused" refused sent.zfs zstd
echo secretsecret | zfs create -s -V ${mib}M -o encryption=on -o keyformat=passphrase zones/secret
zfs snapshot zones/secret@final
zfs send -w zones/secret@final >sent.zfs
check "a raw stream of an encrypted volume is refused" refused sent.zfs 'feature raw'

# Block devices as disks: a volume's, and one with sectors that cannot be read.
path=$(device b8192-vm) || exit 2
check "a device is converted" \
    "$imgforge" convert "$path" device.zfs.gz --from raw --no-progress
check "its stream is received" receive device.zfs.gz device
check "and has its content" content device
modprobe loop && modprobe dm_mod && loop=$(losetup --find --show disk.raw) || exit 2
good=$((25 * 2048 + 600))
dmsetup create --noudevsync broken <<TABLE || exit 2
0 $good linear $loop 0
$good 8 error
$((good + 8)) $((mib * 2048 - good - 8)) linear $loop $((good + 8))
TABLE
dmsetup mknodes
check "unreadable sectors are named by their offset, and nothing stays" bash -c "
    ! '$imgforge' convert /dev/mapper/broken broken.zfs.gz --from raw --no-progress 2>refusal &&
    cat refusal && ! ls | grep '^broken' && grep 'sector $good)' refusal"

# Damage: the kernel and we agree.
flip() { # FILE OFFSET
    cp b8192.zfs "$1"
    printf '\377' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
size=$(stat -c %s b8192.zfs)
for at in 40 5000 $((size / 2)) $((size - 300)); do
    flip bad.zfs "$at"
    cmp -s bad.zfs b8192.zfs && continue
    check "a flipped byte at $at is refused by both" bash -c \
        "! zfs receive zones/bad <bad.zfs && ! '$imgforge' stream info bad.zfs"
    zfs destroy -r zones/bad 2>/dev/null
done
head -c $((size / 3)) b8192.zfs >bad.zfs
check "a cut stream is refused by both" bash -c \
    "! zfs receive zones/bad <bad.zfs && ! '$imgforge' stream info bad.zfs"

zpool scrub -w zones
check "the pool is clean" bash -c \
    "zpool status zones | tee /dev/stderr | grep -q 'No known data errors'"
conclude
