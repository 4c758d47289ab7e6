#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Build the lab: a Linux kernel, an initramfs and a scratch disk that run.sh
# boots under software emulation to get a machine with a working /dev/kvm.
#
#   build.sh [--zfs] [DIR]      DIR defaults to target/lab
#
# The lab machine's root file system is this machine's own, read-only, so only
# the kernel is fetched. What is already built is kept; remove DIR to rebuild.
# --zfs also builds the OpenZFS modules (some minutes, once), and unpacks zpool(8)
# and zfs(8) to DIR/zfs-tools.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")

die() { echo "lab: $*" >&2; exit 1; }

zfs='' dir=target/lab
while [ $# -gt 0 ]; do
	case $1 in
	--zfs) zfs=1 ;;
	-h | --help) sed -n '6,/^set/{/^#/s/^# \?//p}' "$0"; exit ;;
	-*) die "unknown option $1 (usage: build.sh [--zfs] [DIR])" ;;
	*) dir=$1 ;;
	esac
	shift
done
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# One build at a time; the second one then finds everything done.
exec 9> "$dir/lock"
flock 9

# --- Debian packages -----------------------------------------------------
want() { # want FILE-OR-COMMAND PACKAGE...: note the packages if it is missing
	local probe=$1
	shift
	[ -e "$probe" ] || command -v "$probe" > /dev/null || need+=("$@")
}
updated=
update() { [ "$updated" ] || apt-get -q update >> "$dir/apt.log" 2>&1 || die "apt-get update failed, see $dir/apt.log"; updated=1; }
install() {
	[ $# -gt 0 ] || return 0
	[ "$(id -u)" = 0 ] || die "must be root to install: $*"
	echo "lab: installing $*"
	update
	DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@" \
		>> "$dir/apt.log" 2>&1 || die "apt-get install failed, see $dir/apt.log"
}
need=()
want qemu-system-x86_64 qemu-system-x86
want cpio cpio
want depmod kmod
want xz xz-utils
want strip binutils
want mke2fs e2fsprogs
want cc gcc libc6-dev
[[ $(/bin/busybox insmod --help 2>&1) == *insmod* ]] && ! ldd /bin/busybox > /dev/null 2>&1 ||
	need+=(busybox-static)
install "${need[@]}"

# --- kernel --------------------------------------------------------------
if [ ! -s "$dir/version" ]; then
	pkg() { apt-cache depends linux-image-amd64 2> /dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1; }
	[ "$(pkg)" ] || update
	pkg=$(pkg)
	[ "$pkg" ] || die "apt knows no linux-image-amd64"
	echo "lab: fetching $pkg"
	rm -rf "$dir/kernel" "$dir/deb"
	mkdir -p "$dir/kernel" "$dir/deb"
	fetch() { (cd "$dir/deb" && apt-get -q -o APT::Sandbox::User=root download "$pkg") >> "$dir/apt.log" 2>&1; }
	fetch || { update; fetch; } || die "cannot download $pkg, see $dir/apt.log"
	dpkg -x "$dir"/deb/*.deb "$dir/kernel"
	rm -rf "$dir/deb" "$dir"/kernel/lib/modules/*/kernel/{sound,drivers/{gpu,media,infiniband,net/{ethernet,wireless}}}
	version=${pkg#linux-image-}
	rm -f "$dir"/initramfs "$dir"/vmlinux

	# The bzImage would unpack itself under emulation, which takes six seconds;
	# unpack it here and boot the ELF file inside (QEMU enters it by PVH).
	z=$dir/kernel/boot/vmlinuz-$version
	num() { od -An -v -t"$3" -j"$1" -N"$2" "$z" | tr -d ' '; }
	dd if="$z" of="$dir/payload" bs=1M status=none iflag=skip_bytes,count_bytes \
		skip=$((($(num 0x1f1 1 u1) + 1) * 512 + $(num 0x248 4 u4))) count="$(num 0x24c 4 u4)"
	xz -dc --single-stream < "$dir/payload" > "$dir/vmlinux" 2> /dev/null || true
	rm "$dir/payload"
	grep -aqm1 "^.ELF" "$dir/vmlinux" || { echo "lab: booting the packed kernel (slower)"; cp "$z" "$dir/vmlinux"; }
	depmod -b "$dir/kernel" "$version"
	echo "$version" > "$dir/version"
fi
version=$(cat "$dir/version")

# --- initramfs: busybox, what it takes to mount the root, and KVM ---------
if [ "$here/init" -nt "$dir/initramfs" ]; then
	echo "lab: making the initramfs for $version"
	rm -rf "$dir/ird"
	mkdir -p "$dir"/ird/{bin,dev,proc,sys,modules,root,low,disk}
	cp /bin/busybox "$dir/ird/bin/"
	cp "$here/init" "$dir/ird/init"
	chmod 755 "$dir/ird/init"
	for m in virtio_pci virtio_blk virtio_console virtio_rng 9pnet_virtio 9p crc32c_generic ext4 overlay \
		qemu_fw_cfg kvm_amd tun; do
		modprobe -d "$dir/kernel" -S "$version" --show-depends "$m" || die "no module $m in $version"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r ko; do
		strip --strip-debug -o "$dir/ird/modules/${ko##*/}" "$ko"
		echo "${ko##*/}" >> "$dir/ird/order"
	done
	(cd "$dir/ird" && find . | cpio --quiet -o -H newc -R 0:0) > "$dir/initramfs.new"
	rm -rf "$dir/ird"
	mv "$dir/initramfs.new" "$dir/initramfs"
fi

# --- a mend for QEMU (see the file) ----------------------------------------
if [ "$here/tcgfix.c" -nt "$dir/tcgfix.so" ]; then
	cc -O1 -Wall -shared -fPIC -o "$dir/tcgfix.so.new" "$here/tcgfix.c"
	mv "$dir/tcgfix.so.new" "$dir/tcgfix.so"
fi

# --- scratch disk: sparse, empty, never written (run.sh uses a throw-away layer)
if [ ! -s "$dir/scratch" ]; then
	truncate -s 16G "$dir/scratch.new"
	mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,nodiscard -m 0 "$dir/scratch.new"
	mv "$dir/scratch.new" "$dir/scratch"
fi

# --- OpenZFS modules -------------------------------------------------------
extra=$dir/kernel/lib/modules/$version/extra
if [ "$zfs" ] && [ ! -s "$extra/zfs.ko" ]; then
	headers=linux-headers-$version
	apt-cache show "$headers" > /dev/null 2>&1 || update
	apt-cache show "$headers" > /dev/null 2>&1 || die "$headers is gone from the archive: remove $dir and build again"
	need=()
	want make make
	[ -d "/usr/src/$headers" ] || need+=("$headers")
	install "${need[@]}"
	echo "lab: building OpenZFS for $version (about four minutes)"
	# It is in contrib, which this machine's own package sources may lack.
	mirror=$("$here/../mirror.sh")
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	rm -rf "$dir/zfs"
	mkdir -p "$dir/zfs/lists/partial"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $codename contrib" > "$dir/zfs/sources.list"
	contrib=(-q -o Dir::Etc::SourceList="$dir/zfs/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::State::Lists="$dir/zfs/lists" -o APT::Sandbox::User=root)
	apt-get "${contrib[@]}" update >> "$dir/apt.log" 2>&1 || die "apt-get update failed for contrib, see $dir/apt.log"
	mapfile -t libraries < <(apt-cache "${contrib[@]}" depends zfsutils-linux | sed -n 's/^ *Depends: \(lib.*linux\)$/\1/p')
	(cd "$dir/zfs" && apt-get "${contrib[@]}" download zfs-dkms zfsutils-linux "${libraries[@]}") >> "$dir/apt.log" 2>&1 ||
		die "cannot download OpenZFS, see $dir/apt.log"
	dpkg -x "$dir"/zfs/zfs-dkms_*.deb "$dir/zfs"
	rm -rf "$dir/zfs-tools"
	for deb in "$dir"/zfs/zfsutils-linux_*.deb "$dir"/zfs/lib*.deb; do
		dpkg -x "$deb" "$dir/zfs-tools"
	done
	(
		cd "$dir"/zfs/usr/src/zfs-*
		# What debuggers would need is stripped below.
		export KCFLAGS=-g0
		# Politely: something else may run beside it, and against a clock.
		nice ./configure --with-config=kernel --with-linux="/usr/src/${headers%-amd64}-common" \
			--with-linux-obj="/usr/src/$headers"
		nice make -j"$(nproc)"
	) > "$dir/zfs.log" 2>&1 || die "building OpenZFS failed, see $dir/zfs.log"
	mkdir -p "$extra.new"
	for ko in "$dir"/zfs/usr/src/zfs-*/module/*/*.ko; do
		strip --strip-debug -o "$extra.new/${ko##*/}" "$ko"
	done
	mv "$extra.new" "$extra"
	depmod -b "$dir/kernel" "$version"
	rm -rf "$dir/zfs"
fi
