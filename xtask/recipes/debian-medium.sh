#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Makes a bootable UEFI ISO of the real debian-installer of Debian 12 (bookworm)
# or 13 (trixie) from Debian packages alone, for machines that reach a Debian package mirror but not the
# place where Debian publishes its ISO images.
#
#   debian-medium.sh RELEASE OUT.iso [CACHE_DIR]
#
# Inside: Debian's own signed GRUB with the menu of the netinst medium, Debian's
# kernel, and the installer's netboot initrd. Some mirrors lack a few of the
# installer's components (.udeb); what they would bring (kernel modules,
# e2fsprogs) comes from the ordinary packages in a second, appended initramfs.
# Needs no root.
set -euo pipefail

usage='usage: debian-medium.sh RELEASE OUT.iso [CACHE_DIR]'
release=${1:?$usage}
out=${2:?$usage}
cache=${3:-target/media/cache}
recipe=debian-$release
case $release in
12) suite=bookworm version='[0-9]+\.[0-9.]+-[0-9]+-amd64' libext2fs=libext2fs2 ;;
13) suite=trixie version='[0-9]+\.[0-9.]+\+deb13-amd64' libext2fs=libext2fs2t64 ;;
*) echo "debian-medium.sh: no recipe for Debian $release; $usage" >&2; exit 2 ;;
esac
# shellcheck source=packages.sh
. "$(dirname "$0")/packages.sh"

need 'curl curl' 'xz xz-utils' 'cpio cpio' 'depmod kmod' 'mformat mtools' 'xorriso xorriso' \
    'dpkg-deb dpkg' 'strings binutils'
open_workspace
open_lists
fetch "$mirror/dists/$suite/main/debian-installer/binary-$arch/Packages.xz" "$cache/$suite-udebs.xz"
xz -dc "$cache/$suite-udebs.xz" >"$work/udebs"

say "unpacking the installer's boot images"
deb "debian-installer-$release-netboot-$arch" "$work/netboot"
boot=$(dirname "$(find "$work/netboot" -path '*/text/*' -name linux -print -quit)")
kver=$(strings "$boot/linux" | grep -m1 -oE "^$version" || true)
[ -n "$kver" ] || die "cannot tell the installer's kernel version"
say "installer kernel $kver"

mkdir "$work/initrd"
(cd "$work/initrd" && zcat "$boot/initrd.gz" | cpio -idm --quiet 2>/dev/null) || true
[ -f "$work/initrd/var/lib/dpkg/status" ] || die "the installer's initrd did not unpack"
# Debian 13's installer has one directory for programs and one for libraries.
usr=usr/
[ -L "$work/initrd/lib" ] || usr=

say "adding kernel modules and e2fsprogs"
deb "linux-image-$kver" "$work/kernel"
for p in e2fsprogs "$libext2fs" libcom-err2 libss2; do deb "$p" "$work/e2fs"; done
over=$work/overlay
modules=${usr}lib/modules
mkdir -p "$over/$modules" "$over/${usr}sbin" "$over/${usr}lib/x86_64-linux-gnu" "$over/etc" "$over/var/lib/dpkg"
cp -a "$work/initrd/$modules/$kver" "$over/$modules/"
src=$work/kernel/usr/lib/modules/$kver/kernel
[ -d "$src" ] || src=$work/kernel/lib/modules/$kver/kernel
for part in fs lib crypto arch/x86/crypto drivers/block drivers/scsi drivers/ata drivers/cdrom \
            drivers/virtio drivers/md drivers/nvme drivers/char/hw_random drivers/firmware; do
    [ -d "$src/$part" ] || continue
    mkdir -p "$over/$modules/$kver/kernel/$part"
    cp -an "$src/$part/." "$over/$modules/$kver/kernel/$part/"
done
cp "$(dirname "$src")"/modules.{builtin,builtin.modinfo,order} "$over/$modules/$kver/" 2>/dev/null || true
# depmod looks below lib/ only.
mkdir -p "$over/lib"
[ -z "$usr" ] || ln -s ../usr/lib/modules "$over/lib/modules"
depmod -b "$over" "$kver"
[ -z "$usr" ] || rm -r "${over:?}/lib"
find "$work/e2fs" \( -path '*/sbin/*' -o -path '*/bin/*' \) \( -type f -o -type l \) -exec cp -a {} "$over/${usr}sbin/" \;
find "$work/e2fs" -name '*.so.*' -exec cp -a {} "$over/${usr}lib/x86_64-linux-gnu/" \;
cp "$work/e2fs/etc/mke2fs.conf" "$over/etc/"

# Tell the installer that the components this mirror lacks are there already.
say "asking the mirror which installer components it has"
cp "$work/initrd/var/lib/dpkg/status" "$over/var/lib/dpkg/status"
awk '$1=="Package:"{p=$2} $1=="Version:"{v=$2} $1=="Filename:"{print p, v, $2}' "$work/udebs" >"$work/list"
while read -r p v path; do printf 'url="%s/%s"\noutput="/dev/null"\n' "$mirror" "${path//+/%2b}"; done <"$work/list" >"$work/heads"
curl -sI --parallel --parallel-max 8 -w '%{http_code} %{url_effective}\n' -K "$work/heads" 2>/dev/null | grep -E '^[0-9]{3} ' >"$work/codes"
lacking=0
while read -r p v path; do
    grep -q "^200 .*/$(basename "${path//+/%2b}" | sed 's/[.[\*^$]/\\&/g')\$" "$work/codes" && continue
    grep -q "^Package: $p\$" "$over/var/lib/dpkg/status" && continue
    case $p in *-modules-*|kernel-image-*) case $p in *"$kver"*) ;; *) continue;; esac;; esac
    case $p in
    apt-setup-udeb | base-installer | finish-install | grub-installer | partman-auto | pkgsel)
        die "the mirror lacks the installer's component $p: nothing can be installed from it" ;;
    esac
    provides=$(awk -v p="$p" '$1=="Package:"{n=$2} $1=="Provides:" && n==p {sub(/^Provides: /,""); print; exit}' "$work/udebs")
    # Something in the installer gives the same already, and gives it when it has run.
    [ -z "$provides" ] || ! grep -qx "Provides:.*\b${provides%%[, ]*}\b.*" "$work/initrd/var/lib/dpkg/status" || continue
    { echo; echo "Package: $p"; echo "Status: install ok installed"; echo "Version: $v"; echo "Architecture: $arch"
      [ -z "$provides" ] || echo "Provides: $provides"; echo "Description: provided by the boot medium"; } >>"$over/var/lib/dpkg/status"
    lacking=$((lacking + 1))
done <"$work/list"
echo >>"$over/var/lib/dpkg/status"
say "$lacking components come from the medium instead of the mirror"

# The index of components travels with the medium: a mirror in the middle of an
# update, whose index does not match its Release file, cannot stop the installer.
# Each component is still checked against the index, and the installed system's
# packages against Debian's signature.
retriever=usr/lib/debian-installer/retriever/net-retriever
mkdir -p "$over/${retriever%/*}" "$over/usr/share/installer-index"
cp "$work/initrd/$retriever" "$over/$retriever.mirror"
cp "$work/udebs" "$over/usr/share/installer-index/Packages"
cat >"$over/$retriever" <<'RETRIEVER'
#!/bin/sh
if [ "$1" = packages ]; then
    cp /usr/share/installer-index/Packages "$2"
    exit
fi
exec /usr/lib/debian-installer/retriever/net-retriever.mirror "$@"
RETRIEVER
chmod +x "$over/$retriever"

(cd "$over" && find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) >"$work/overlay.gz"
cat "$boot/initrd.gz" "$work/overlay.gz" >"$work/initrd.gz"

say "writing the ISO"
# The same paths, menu entries and editor layout as Debian's netinst medium, so
# that boot commands written for that medium fit this one.
deb shim-signed "$work/efi"
deb grub-efi-$arch-signed "$work/efi"
deb grub-common "$work/efi"
iso=$work/iso
mkdir -p "$iso/install.amd" "$iso/boot/grub/x86_64-efi" "$iso/.disk"
cp "$boot/linux" "$iso/install.amd/vmlinuz"
cp "$work/initrd.gz" "$iso/install.amd/initrd.gz"
cp "$work/efi/usr/share/grub/unicode.pf2" "$iso/boot/grub/font.pf2"
echo "Debian GNU/Linux $release (network installer made from packages) $arch" >"$iso/.disk/info"
cp "$recipes/netinst-grub.cfg" "$iso/boot/grub/grub.cfg"
echo 'source /boot/grub/grub.cfg' >"$iso/boot/grub/x86_64-efi/grub.cfg"

esp=$work/efi.img
truncate -s 12M "$esp"
mformat -i "$esp" -v ESP ::
mmd -i "$esp" ::/EFI ::/EFI/BOOT
mcopy -i "$esp" "$work/efi/usr/lib/shim/shimx64.efi.signed" ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$esp" "$work/efi/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed" ::/EFI/BOOT/GRUBX64.EFI
mkdir -p "$iso/EFI/boot"
cp "$work/efi/usr/lib/shim/shimx64.efi.signed" "$iso/EFI/boot/bootx64.efi"
cp "$work/efi/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed" "$iso/EFI/boot/grubx64.efi"
cp "$esp" "$iso/boot/grub/efi.img"
mkdir -p "$(dirname "$out")"
xorriso -as mkisofs -quiet -V "Debian $release netboot" -r -J \
    -e boot/grub/efi.img -no-emul-boot -append_partition 2 0xef "$esp" -partition_cyl_align all \
    -o "$out.part" "$iso" 2>"$work/xorriso.log" || { cat "$work/xorriso.log" >&2; die "xorriso failed"; }
mv "$out.part" "$out"
say "$out: $(stat -c %s "$out") bytes, sha256 $(sha256sum "$out" | cut -d' ' -f1)"
