#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# The whole pipeline on imgforge's own monitor: the tiny installer, its disk
# booted, provisioned, sealed and exported.
#
#   tiny.sh HYPERVISOR IMGFORGE MEDIUM [PROCESSORS [BHYVE-ROM [MODEL]]]
#
# HYPERVISOR is kvm, or bhyve, whose kernel is played by the library MODEL. The
# guest has one processor and the host's OVMF unless told otherwise; a bhyve ROM
# is one such as SmartOS'. Runs in the lab machine, from the project's directory.
# Prints one line per check in TAP form; exit status 1 if any check fails.
set -u
# shellcheck source=../tap.sh
. "$(dirname "$0")/../tap.sh"

usage='usage: tiny.sh HYPERVISOR IMGFORGE MEDIUM [PROCESSORS [BHYVE-ROM [MODEL]]]'
hypervisor=${1:?$usage}
imgforge=$(realpath "${2:?$usage}")
medium=$(realpath "${3:?$usage}")
processors=${4:-1}
rom=${5:+$(realpath "$5")}
export IMGFORGE_BHYVE_ROM=$rom
out=/mnt/scratch/tiny
export HOME=/root

build() { # everything it says, for the log
    mkdir -p /mnt/scratch/target
    cp tests/data/tiny/* /mnt/scratch/target
    sed -i -e "s/^  cpus: .*/  cpus: $processors/" "${patience[@]}" /mnt/scratch/target/tiny.yaml
    host "$imgforge" build tiny --target-file /mnt/scratch/target/tiny.yaml --iso "$medium" \
        --var boot_wait="$boot_wait" --var ssh_timeout=10m --hypervisor "$hypervisor" "${network[@]}" \
        --no-cache --no-progress --output "$out" >&2 && return
    tail -n 40 "$out".failed/serial.log >&2
    return 1
}
said() { # WORDS: what the guest's own look at its machine reported
    grep -h "$1" "$out/build.log" | sed 's/.*machine: //'
}
processors() { said 'machine: processors'; grep -q "machine: processors: $processors\$" "$out/build.log"; }
drivers() { # network, disk, entropy; the CD-ROM drive is not there any more
    said 'machine: virtio'
    [ "$(said 'machine: virtio' | sort | tr '\n' ' ')" = \
        "virtio 0x0001: virtio_net virtio 0x0002: virtio_blk virtio 0x0004: virtio_rng " ]
}
firmware() { # each has a screen of its own
    said 'machine: firmware'
    local screen='0x1234 0x1111'
    [ -z "$rom" ] || screen='0xfb5d 0x40fb'
    grep -q "machine: screen: $screen" "$out/build.log"
}
content() { grep 'machine: the disk gives back what was written' "$out/build.log"; }
quiet() { # no line of the kernel's that it calls an error
    said 'machine: kernel error'
    ! grep -q 'machine: kernel error' "$out/build.log"
}
monitor() { grep -q "$hypervisor by imgforge" "$out/build.log"; }
manifest() { "$imgforge" manifest check "$out/tiny-1.json" --file "$out/tiny-1.x86_64.zfs.gz"; }
left() { # nothing runs, nothing lies about
    sleep_for=20
    while pgrep -x passt >/dev/null && [ "$sleep_for" -gt 0 ]; do
        sleep 0.5
        sleep_for=$((sleep_for - 1))
    done
    ! pgrep -x passt && ! pgrep -f 'imgforge vmm' && ! ls /run/imgforge/* 2>/dev/null && gone
}

watch() { # notes once that the monitor has given up what it does not need
    until status=$(cat "/proc/$(pgrep -f 'imgforge vmm' | head -n 1)/status" 2>/dev/null) &&
        grep -q '^NoNewPrivs:.*1$' <<<"$status" && grep -q '^Seccomp:.*2$' <<<"$status"; do
        sleep 1
    done
    : >/mnt/scratch/confined
}

# What differs from one hypervisor to the other: `network`, a build's arguments
# for it; `boot_wait` and `patience`, how slow it is here (a time, and sed's
# words for the target); `host COMMAND...`, how imgforge runs; `gone`, that the
# kernel has no machine left; `more`, checks of its own.
# shellcheck source=host-kvm.sh
. "$(dirname "$0")/host-$hypervisor.sh"

watch &
check "the tiny image is built" build
check "imgforge was the monitor" monitor
check "the stream is what the manifest says" manifest
check "qemu-img finds the other image sound" qemu-img check -q "$out/tiny-1.x86_64.qcow2"
check "the monitor was confined" test -e /mnt/scratch/confined
check "the guest has the processors it was given" processors
check "the guest's firmware is the one that was named" firmware
check "the guest has a driver for each virtio device" drivers
check "the disk gave back what was written, after a discard too" content
check "the guest's kernel reports no error" quiet
more
check "nothing is left" left
conclude
