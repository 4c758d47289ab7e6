#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Makes the tiny medium: a UEFI ISO with an installer in miniature that goes
# through all that a distributor's installer does (boot menu, answer file by
# HTTP, partitions, system, boot loader, restart) in seconds.
#
#   tiny-medium.sh OUT.iso [CACHE_DIR]
#
# Made from Debian 12 packages: GRUB, the cloud kernel, busybox, OpenSSH. Its
# menu has the entries, paths and editor layout of Debian's netinst medium, so
# that boot commands written for that medium fit. `tiny/` holds what runs in it.
# Needs no root.
set -euo pipefail

out=${1:?usage: tiny-medium.sh OUT.iso [CACHE_DIR]}
cache=${2:-target/media/cache}
recipe=tiny
suite=bookworm
# shellcheck source=packages.sh
. "$(dirname "$0")/packages.sh"

need 'curl curl' 'xz xz-utils' 'cpio cpio' 'depmod kmod' 'mformat mtools' 'xorriso xorriso' \
    'dpkg-deb dpkg' 'readelf binutils'
open_workspace
open_lists

say "unpacking packages"
kernel=$(field "$work/packages" linux-image-cloud-$arch Depends)
kver=${kernel#linux-image-}
for package in "$kernel" busybox-static openssh-server openssh-client openssh-sftp-server fdisk \
    grub-efi-$arch-signed grub-common; do
    deb "$package" "$work/pkg"
done
for package in libc6 libcrypt1 libpam0g libselinux1 libgssapi-krb5-2 libkrb5-3 libk5crypto3 \
    libkrb5support0 libcom-err2 libkeyutils1 libssl3 libwrap0 libnsl2 libtirpc3 libsystemd0 \
    libaudit1 libcap-ng0 libpcre2-8-0 zlib1g liblzma5 libzstd1 liblz4-1 libcap2 libgcrypt20 \
    libgpg-error0 libfdisk1 libsmartcols1 libblkid1 libuuid1 libmount1 libreadline8 libtinfo6; do
    deb "$package" "$work/lib"
done

# program FROM ROOT TO: a program with all the libraries that it needs.
program() {
    local lib found
    mkdir -p "$2/$(dirname "$3")" "$2/lib/x86_64-linux-gnu" "$2/lib64"
    cp -L "$work/pkg/$1" "$2/$3"
    cp -L "$(find "$work/lib" -name ld-linux-x86-64.so.2 ! -type d -print -quit)" "$2/lib64/"
    local queue=("$2/$3")
    while [ ${#queue[@]} -gt 0 ]; do
        local next=()
        while read -r lib; do
            [ "$lib" != ld-linux-x86-64.so.2 ] || continue
            [ ! -e "$2/lib/x86_64-linux-gnu/$lib" ] || continue
            found=$(find "$work/lib" -name "$lib" -print -quit)
            [ -n "$found" ] || die "$3 needs $lib, which no listed package holds"
            cp -L "$found" "$2/lib/x86_64-linux-gnu/$lib"
            next+=("$2/lib/x86_64-linux-gnu/$lib")
        done < <(readelf -d "${queue[@]}" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u)
        queue=(${next[@]+"${next[@]}"})
    done
}

# modules ROOT NAME...: kernel modules with all that they depend on.
modules() {
    local root=$1 name path dependency
    shift
    mkdir -p "$root/lib/modules/$kver"
    for name in "$@"; do
        path=$(modinfo --basedir "$work/pkg" -k "$kver" -F filename "$name") || die "no module $name in $kernel"
        [ "$path" != "(builtin)" ] || continue
        path=${path#"$work/pkg"}
        [ ! -e "$root$path" ] || continue
        mkdir -p "$root${path%/*}"
        cp "$work/pkg$path" "$root$path"
        while read -r dependency; do
            [ -z "$dependency" ] || modules "$root" "$dependency"
        done < <(modinfo --basedir "$work/pkg" -k "$kver" -F depends "$name" | tr , '\n')
    done
}

# base ROOT: busybox and its directories.
base() {
    mkdir -p "$1"/{bin,sbin,etc/udhcpc,dev,proc,sys,run,tmp,root,mnt,lib}
    cp "$work/pkg/bin/busybox" "$1/bin/busybox"
    ln -s busybox "$1/bin/sh"
    install -m 0755 "$recipes/tiny/udhcpc" "$1/etc/udhcpc/default.script"
}

# seal_modules ROOT: the index that modprobe reads.
seal_modules() {
    cp "$work/pkg/lib/modules/$kver/"modules.{builtin,builtin.modinfo,order} "$1/lib/modules/$kver/"
    depmod -b "$1" "$kver"
}

# pack ROOT: a cpio archive on standard output.
pack() { (cd "$1" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0); }

depmod -b "$work/pkg" "$kver"

say "making the installed system"
system=$work/system
base "$system"
mkdir -p "$system"/{boot/efi,etc/ssh,etc/init.d,etc/acpi/PWRF,usr/bin,usr/sbin,var/empty,var/log,var/tmp}
chmod 1777 "$system/tmp" "$system/var/tmp"
chmod 0700 "$system/root"
while read -r applet; do
    [ -e "$system/$applet" ] || [ -L "$system/$applet" ] || {
        mkdir -p "$system/$(dirname "$applet")"
        ln -s /bin/busybox "$system/$applet"
    }
done < <("$work/pkg/bin/busybox" --list-full)
program usr/sbin/sshd "$system" usr/sbin/sshd
program usr/bin/ssh-keygen "$system" usr/bin/ssh-keygen
program usr/lib/openssh/sftp-server "$system" usr/lib/openssh/sftp-server
modules "$system" virtio_pci virtio_blk virtio_net virtio_rng button evdev pvpanic_pci vfat nls_cp437 nls_ascii
seal_modules "$system"
install -m 0755 "$recipes/tiny/rcS" "$system/etc/init.d/rcS"
printf '#!/bin/sh\nexec /sbin/poweroff\n' >"$system/etc/acpi/PWRF/00000080"
chmod 0755 "$system/etc/acpi/PWRF/00000080"
cat >"$system/etc/inittab" <<'CFG'
::sysinit:/etc/init.d/rcS
tty1::respawn:/sbin/getty 38400 tty1
ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100
::ctrlaltdel:/sbin/reboot
CFG
cat >"$system/etc/ssh/sshd_config" <<'CFG'
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin yes
UseDNS no
UsePAM no
Subsystem sftp /usr/lib/openssh/sftp-server
CFG
: >"$system/etc/ssh/enabled"
printf 'root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534:sshd:/run/sshd:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n' >"$system/etc/passwd"
printf 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n' >"$system/etc/group"
printf 'root:!:19700:0:99999:7:::\nsshd:!:19700::::::\n' >"$system/etc/shadow"
chmod 0600 "$system/etc/shadow"
printf '/bin/sh\n' >"$system/etc/shells"
printf 'ID=tiny\nNAME=Tiny\nVERSION_ID=1\nPRETTY_NAME="Tiny, made from Debian 12 packages"\n' >"$system/etc/os-release"

say "making its initramfs"
first=$work/first
base "$first"
modules "$first" virtio_pci virtio_blk
seal_modules "$first"
install -m 0755 "$recipes/tiny/disk-init" "$first/init"

say "making the installer"
installer=$work/installer
base "$installer"
mkdir "$installer/payload"
program sbin/sfdisk "$installer" sbin/sfdisk
modules "$installer" virtio_pci virtio_blk virtio_net virtio_rng pvpanic_pci vfat nls_cp437 nls_ascii
seal_modules "$installer"
install -m 0755 "$recipes/tiny/installer-init" "$installer/init"
install -m 0644 "$recipes/tiny/installer.sh" "$installer/lib/installer.sh"
payload=$work/payload
mkdir -p "$payload/payload"
tar -C "$system" --owner=0 --group=0 --numeric-owner -c . | gzip -9 >"$payload/payload/system.tar.gz"
pack "$first" | gzip -9 >"$payload/payload/initrd.gz"
cp "$work/pkg/boot/vmlinuz-$kver" "$payload/payload/vmlinuz"
cp "$work/pkg/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$payload/payload/grub.efi"

say "writing the ISO"
iso=$work/iso
mkdir -p "$iso/install.amd" "$iso/boot/grub/x86_64-efi" "$iso/.disk" "$iso/EFI/boot"
cp "$work/pkg/boot/vmlinuz-$kver" "$iso/install.amd/vmlinuz"
# The payload stays as it is, for it is compressed already. It comes first, where
# the kernel finds it aligned.
{ pack "$payload"; pack "$installer" | gzip -9; } >"$iso/install.amd/initrd.gz"
cp "$work/pkg/usr/share/grub/unicode.pf2" "$iso/boot/grub/font.pf2"
echo "Tiny installer made from Debian 12 packages" >"$iso/.disk/info"
cp "$recipes/netinst-grub.cfg" "$iso/boot/grub/grub.cfg"
echo 'source /boot/grub/grub.cfg' >"$iso/boot/grub/x86_64-efi/grub.cfg"
loader=$work/pkg/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed
cp "$loader" "$iso/EFI/boot/bootx64.efi"
esp=$work/efi.img
truncate -s 4M "$esp"
mformat -i "$esp" -v ESP ::
mmd -i "$esp" ::/EFI ::/EFI/BOOT
mcopy -i "$esp" "$loader" ::/EFI/BOOT/BOOTX64.EFI
cp "$esp" "$iso/boot/grub/efi.img"
mkdir -p "$(dirname "$out")"
xorriso -as mkisofs -quiet -V 'Tiny installer' -r -J \
    -e boot/grub/efi.img -no-emul-boot -append_partition 2 0xef "$esp" -partition_cyl_align all \
    -o "$out.part" "$iso" 2>"$work/xorriso.log" || { cat "$work/xorriso.log" >&2; rm -f "$out.part"; die "xorriso failed"; }
mv "$out.part" "$out"
say "$out: $(stat -c %s "$out") bytes"
