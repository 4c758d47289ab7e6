#!/bin/sh
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Runs in the installed tiny system: says what machine it is, what its kernel
# complains of, and fails unless the disk gives back what was written to it.
set -eu

say() { echo "machine: $*"; }
fail() { say "$*" >&2; exit 1; }
forget() { sync; echo 3 >/proc/sys/vm/drop_caches; }
sum() { sha256sum <"$1"; }

say "processors: $(grep -c ^processor /proc/cpuinfo)"
for device in /sys/bus/virtio/devices/*; do
    say "virtio $(cat "$device/device"): $(basename "$(readlink "$device/driver")")"
done
dmesg | sed -n 's/.*efi: EFI v[0-9.]* by /machine: firmware: /p'
for device in /sys/bus/pci/devices/*; do
    case $(cat "$device/class") in
    0x03*) say "screen: $(cat "$device/vendor" "$device/device" | tr '\n' ' ')" ;;
    esac
done
dmesg -r | sed -n 's/^<[0-3]>/machine: kernel error: /p'

# Written at one stroke, in small pieces, and with holes; read after the kernel
# has forgotten all of it, again after what lay between was discarded.
dir=/root/content
mkdir "$dir"
seq 1 200000 >"$dir/one"
dd if="$dir/one" of="$dir/pieces" bs=1k 2>/dev/null
seq 1 200000 >"$dir/between"
for at in 0 1 7 64 513 1000; do
    dd if="$dir/one" of="$dir/holes" bs=4k count=3 seek="$at" conv=notrunc 2>/dev/null
done
want=$(sum "$dir/one") holes=$(sum "$dir/holes")
forget
[ "$(sum "$dir/one")" = "$want" ] || fail "a file changed on the disk"
[ "$(sum "$dir/pieces")" = "$want" ] || fail "a file written in pieces changed on the disk"
[ "$(sum "$dir/holes")" = "$holes" ] || fail "a file with holes changed on the disk"
rm "$dir/between"
sync
fstrim /
forget
[ "$(sum "$dir/pieces")" = "$want" ] || fail "discarding took too much"
[ "$(sum "$dir/holes")" = "$holes" ] || fail "discarding took too much of a file with holes"
rm -r "$dir"
say "the disk gives back what was written"
