#!/bin/sh
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# Looks at a finished image without booting it: the partition table, both boot
# loaders, and that nothing of the build is left.
#
#   check-disk.sh DISK.raw [WORD...]
#
# Each WORD (the build's key, its password hash, its mirror) must not occur
# anywhere on the disk, free space included. Needs root, for read-only mounts,
# and mtools.
# Prints one line per check in TAP form; exit status 1 if any check fails.

set -u
# shellcheck source=../tap.sh
. "$(dirname "$0")/../tap.sh"

disk=${1:?usage: check-disk.sh DISK.raw [WORD...]}
shift
[ -f "$disk" ] || { echo "check-disk: $disk: no such file" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo 'check-disk: needs root to mount' >&2; exit 2; }

root=$(mktemp -d)
leave() {
    umount "$root/boot" 2>/dev/null
    umount "$root" 2>/dev/null
    rmdir "$root"
}
trap leave EXIT
trap 'exit 130' INT TERM

# partition N COLUMN: from the table, in sectors
partition() { partx --raw --noheadings --nr "$1" --output "$2" "$disk"; }

attach() { # N MOUNTPOINT
    start=$(partition "$1" START) && size=$(partition "$1" SECTORS) &&
        mount -t ext4 -o "ro,loop,noload,offset=$((start * 512)),sizelimit=$((size * 512))" "$disk" "$2"
}

# FAT is read without a mount: not every kernel knows it
esp_has() {
    for path; do
        mdir -b -i "$disk@@$(($(partition 2 START) * 512))" "::$path" || return 1
    done
}

types() {
    found=$(partx --raw --noheadings --output TYPE "$disk" | tr '\n' ' ')
    want='21686148-6449-6e6f-744e-656564454649 c12a7328-f81f-11d2-ba4b-00a0c93ec93b 0fc63daf-8483-4772-8e79-3d69d8477de4 0fc63daf-8483-4772-8e79-3d69d8477de4 '
    echo "partition types: $found"
    [ "$found" = "$want" ]
}
core_image() { # GRUB's core image starts with its own boot code, never with zeroes
    dd if="$disk" bs=512 skip="$(partition 1 START)" count=1 2>/dev/null | tr -d '\000' | wc -c | {
        read -r bytes
        echo "$bytes bytes of code in the BIOS boot partition"
        [ "$bytes" -gt 100 ]
    }
}
boot_sector() { dd if="$disk" bs=512 count=1 2>/dev/null | grep -q GRUB; }
absent() {
    for path; do
        for found in "$root"$path; do
            [ ! -e "$found" ] || { echo "${found#"$root"} is there"; return 1; }
        done
    done
}
present() {
    for path; do
        [ -s "$root$path" ] || { echo "$path is missing or empty"; return 1; }
    done
}
one_kernel() {
    echo "$root"/boot/vmlinuz-*
    set -- "$root"/boot/vmlinuz-*
    [ $# -eq 1 ] && [ -f "$1" ] && set -- "$root"/boot/initrd.img-* && [ $# -eq 1 ] && [ -f "$1" ] &&
        set -- "$root"/lib/modules/* && [ $# -eq 1 ]
}
no_password() { # no account with a hash that anything could match
    awk -F: '$2 !~ /^[!*]+$/ { print $1 " has a password field"; bad = 1 } END { exit bad }' "$root/etc/shadow"
}
only_root_logs_in() {
    awk -F: '$3 >= 1000 && $3 < 60000 { print $1; bad = 1 } END { exit bad }' "$root/etc/passwd"
}
empty_logs() {
    found=$(find "$root/var/log" -type f -size +0)
    echo "$found"
    [ -z "$found" ]
}
empty_machine_id() { [ -e "$root/etc/machine-id" ] && [ ! -s "$root/etc/machine-id" ]; }
no_swap() { ! grep -qw swap "$root/etc/fstab"; }
smartos_only() {
    grep -hE '^datasource_list' "$root"/etc/cloud/cloud.cfg.d/90_smartos.cfg &&
        [ "$(cat "$root"/etc/cloud/cloud.cfg.d/9[1-9]* 2>/dev/null | grep -c datasource_list)" -eq 0 ] &&
        grep -qx 'datasource_list: \[ SmartOS \]' "$root/etc/cloud/cloud.cfg.d/90_smartos.cfg"
}
keys_only() {
    grep -qx 'PermitRootLogin prohibit-password' "$root/etc/ssh/sshd_config.d/10-smartos.conf" &&
        grep -qx 'PasswordAuthentication no' "$root/etc/ssh/sshd_config.d/10-smartos.conf"
}
default_command_line() {
    line=$(grep -m1 'vmlinuz' "$root/boot/grub/grub.cfg")
    echo "$line"
    case $line in
    *preseed* | *url=* | *priority=* | *auto=*) return 1 ;;
    *console=ttyS0*) ;;
    *) return 1 ;;
    esac
}
no_word() { ! LC_ALL=C grep -aFq -e "$1" "$disk"; }
mostly_holes() {
    used=$(($(stat -c %b "$disk") * $(stat -c %B "$disk") / 1048576))
    held=$(df -m --output=used "$root" "$root/boot" | awk 'NR > 1 { n += $1 } END { print n }')
    echo "the disk occupies $used MiB, its file systems hold $held MiB"
    [ "$used" -lt $((held * 13 / 10 + 200)) ]
}

check 'four partitions: BIOS boot, EFI system, /boot, /' types
check 'BIOS: the boot sector is GRUB' boot_sector
check 'BIOS: GRUB has its core image' core_image
if ! { attach 4 "$root" && attach 3 "$root/boot"; }; then
    echo 'Bail out! the file systems cannot be mounted'
    exit 1
fi
check 'BIOS: GRUB has its modules' present /boot/grub/i386-pc/normal.mod
check 'UEFI: a loader at the removable-media path' esp_has /EFI/BOOT/BOOTX64.EFI
check 'the kernel starts with the image'\''s arguments alone' default_command_line
check 'one kernel' one_kernel
check 'no swap' no_swap
check 'cloud-init asks SmartOS and nobody else' smartos_only
check 'metadata client, guest scripts, units' present /usr/sbin/mdata-get /usr/sbin/mdata-put \
    /usr/sbin/mdata-list /usr/sbin/mdata-delete /usr/lib/smartdc/mdata-get /usr/lib/smartdc/triton-guest \
    /usr/lib/smartdc/prepare-image /etc/systemd/system/triton-guest.service /etc/motd
check 'no account has a password' no_password
check 'no account but root logs in' only_root_logs_in
check 'sshd takes keys only' keys_only
check 'no SSH host keys' absent '/etc/ssh/ssh_host_*'
check 'machine-id is empty' empty_machine_id
check 'no host name, host id, first-boot marker' absent /etc/hostname /etc/hostid \
    /usr/lib/smartdc/.firstboot-complete-do-not-delete
check 'no random seed' absent /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
check 'no state of cloud-init' absent /var/lib/cloud/instance /var/lib/cloud/data /var/lib/cloud/seed
check 'no leases' absent '/var/lib/dhcp/*.leases' '/var/lib/dhcpcd/*.lease' /var/lib/dhcpcd/duid /var/lib/dhcpcd/secret
check 'no installer files' absent /var/log/installer /etc/apt/sources.list '/etc/network/interfaces.d/*'
check 'no backups of account files' absent /etc/shadow- /etc/passwd-
check 'no package lists and caches' absent '/var/lib/apt/lists/*_Packages*' '/var/cache/apt/archives/*.deb'
check 'no trace of the build in /root' absent /root/.bash_history /root/.ansible /root/.ssh/authorized_keys /root/.cache
check 'ansible is not installed' absent /usr/bin/ansible /usr/bin/ansible-playbook
check 'the logs are empty' empty_logs
check 'free space went back to the host' mostly_holes
for word; do
    check 'a word of the build occurs nowhere on the disk' no_word "$word"
done

conclude
