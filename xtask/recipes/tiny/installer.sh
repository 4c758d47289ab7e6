# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Functions of the tiny installer, for its first process and for answer files.
# shellcheck shell=sh

target=/mnt
esp_label=TINYESP
root_label=tinyroot

say() { printf '%s\n' "$*"; }

wait_for_ever() { while :; do sleep 3600; done; }

# ask TEXT: a question that nobody answers, as an installer asks it.
ask() {
    printf '\n  [!!] %s\n\n      <Go Back>                              <Continue>\n' "$*"
    wait_for_ever
}

# kernel_argument NAME: its value, or nothing.
kernel_argument() {
    for word in $(cat /proc/cmdline); do
        case $word in "$1="*) printf '%s\n' "${word#*=}"; return ;; esac
    done
}

# await_network: waits for the interface and a lease, 20 seconds each at most.
await_network() {
    tries=0
    until [ -d /sys/class/net/eth0 ]; do
        tries=$((tries + 1)); [ "$tries" -le 200 ] || return 1
        usleep 100000
    done
    ip link set eth0 up
    udhcpc -i eth0 -n -q -f -t 10 -T 2 -s /etc/udhcpc/default.script >/dev/null 2>&1
}

# partition_disk DISK: one EFI partition, the rest for the system; both mounted.
partition_disk() {
    say "Partitioning $1"
    tries=0
    until [ -b "$1" ]; do
        tries=$((tries + 1)); [ "$tries" -le 100 ] || { say "There is no disk $1"; return 1; }
        usleep 100000
    done
    printf 'label: gpt\nsize=48MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp\ntype=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root\n' |
        sfdisk --quiet "$1"
    tries=0
    until [ -b "${1}2" ]; do
        tries=$((tries + 1)); [ "$tries" -le 100 ] || { say "No partitions appeared on $1"; return 1; }
        usleep 100000
    done
    say "Making file systems"
    mkdosfs -n "$esp_label" "${1}1" >/dev/null
    mke2fs -L "$root_label" "${1}2" >/dev/null
    mount -t ext4 -o noatime "${1}2" "$target"
    mkdir -p "$target/boot/efi"
    mount -t vfat "${1}1" "$target/boot/efi"
}

# install_system: the files of the system, its kernel and its boot loader.
install_system() {
    say "Installing the system"
    tar -xzf /payload/system.tar.gz -C "$target"
    cp /payload/vmlinuz /payload/initrd.gz "$target/boot/"
    say "Installing the boot loader"
    mkdir -p "$target/boot/efi/EFI/BOOT" "$target/boot/efi/EFI/debian"
    cp /payload/grub.efi "$target/boot/efi/EFI/BOOT/BOOTX64.EFI"
    cat >"$target/boot/efi/EFI/debian/grub.cfg" <<CFG
set timeout=0
search --no-floppy --label --set=root $root_label
menuentry 'Tiny' {
    linux /boot/vmlinuz root=LABEL=$root_label console=tty0 console=ttyS0,115200 no_timer_check quiet
    initrd /boot/initrd.gz
}
CFG
    printf 'LABEL=%s / ext4 noatime 0 1\nLABEL=%s /boot/efi vfat umask=0077 0 2\n' "$root_label" "$esp_label" >"$target/etc/fstab"
}

# set_hostname NAME
set_hostname() {
    printf '%s\n' "$1" >"$target/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$1" >"$target/etc/hosts"
}

# set_root_password HASH: a crypt(3) hash.
set_root_password() {
    printf 'root:%s:19700:0:99999:7:::\nsshd:!:19700::::::\n' "$1" >"$target/etc/shadow"
    chmod 0600 "$target/etc/shadow"
}

# authorize_root_key LINE: a line for authorized_keys.
authorize_root_key() {
    mkdir -p "$target/root/.ssh"
    chmod 0700 "$target/root/.ssh"
    printf '%s\n' "$1" >>"$target/root/.ssh/authorized_keys"
    chmod 0600 "$target/root/.ssh/authorized_keys"
}

# finish: everything on the disk.
finish() {
    say "Writing to the disk"
    umount "$target/boot/efi" "$target" || ask "The disk could not be unmounted. Try again?"
    sync
}
