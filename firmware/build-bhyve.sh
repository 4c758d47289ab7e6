#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Builds the bhyve flavour of edk2 (OvmfPkg/Bhyve) from Debian's source package,
# to look at it without a SmartOS ROM. It comes to its shell on our board and finds
# no disk there: the README tells which ROM boots one.
#
#   build-bhyve.sh [OUT]      OUT defaults to target/firmware/uefi-rom.bin
#
# The result is the whole flash of 4 MiB, variables first, which
# IMGFORGE_BHYVE_ROM takes. Needs Debian, and root or the packages that it
# names; takes some minutes, once: an existing OUT is kept. DEBUG=1 makes a
# build that talks on the second serial port.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
out=$(realpath -m "${1:-$here/../target/firmware/uefi-rom.bin}")
kind=RELEASE
[ -z "${DEBUG-}" ] || kind=DEBUG

die() {
    echo "build-bhyve: error: $*" >&2
    exit 1
}
say() { echo "build-bhyve: $*"; }

[ ! -s "$out" ] || { say "$out is there already"; exit 0; }
mkdir -p "$(dirname "$out")"
exec 9>"$out.lock"
flock 9
[ ! -s "$out" ] || exit 0

missing=()
while read -r probe package; do
    [ -e "$probe" ] || command -v "$probe" >/dev/null || missing+=("$package")
done <<'LIST'
gcc gcc
g++ g++
make make
nasm nasm
iasl acpica-tools
python3 python3
python3-config python3-dev
/usr/include/uuid/uuid.h uuid-dev
dpkg-source dpkg-dev
xz xz-utils
LIST
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || die "packages are missing: run \`apt-get install ${missing[*]}\`"
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install -y \
        --no-install-recommends "${missing[@]}" >"$out.log" 2>&1 || die "apt-get failed: see $out.log"
fi

work=$(mktemp -d "${TMPDIR:-/var/tmp}/edk2.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial"
mirror=$("$here/../xtask/recipes/mirror.sh")
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $codename main" >"$work/sources.list"
sources=(-q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$work/lists" -o APT::Sandbox::User=root)
say "fetching edk2 of Debian $codename"
(
    cd "$work"
    apt-get "${sources[@]}" update
    apt-get "${sources[@]}" source edk2
) >>"$out.log" 2>&1 || die "cannot fetch the source package: see $out.log"
tree=$(find "$work" -maxdepth 1 -type d -name 'edk2-*' -print -quit)
platform=OvmfPkg/Bhyve/BhyveX64.dsc
[ -f "$tree/$platform" ] || die "this edk2 has no OvmfPkg/Bhyve"
# Debian does not build this platform. Its shell asks whether Secure Boot is on, for which the platform
# names the libraries only when it has Secure Boot; OvmfPkgX64.dsc names the same ones.
library() { sed -i "0,/^\[LibraryClasses\]/s||&\n  $1\|$2|" "$tree/$platform"; }
library SecureBootVariableLib SecurityPkg/Library/SecureBootVariableLib/SecureBootVariableLib.inf
library PlatformPKProtectionLib \
    SecurityPkg/Library/PlatformPKProtectionLibVarPolicy/PlatformPKProtectionLibVarPolicy.inf
library VirtioLib OvmfPkg/Library/VirtioLib/VirtioLib.inf
# It lacks drivers that illumos' version has, as SmartOS' ROM shows.
volume=${platform%.dsc}.fdf
for driver in OvmfPkg/VirtioPciDeviceDxe/VirtioPciDeviceDxe.inf OvmfPkg/Virtio10Dxe/Virtio10.inf \
    OvmfPkg/VirtioBlkDxe/VirtioBlk.inf OvmfPkg/VirtioScsiDxe/VirtioScsi.inf \
    OvmfPkg/VirtioRngDxe/VirtioRng.inf MdeModulePkg/Bus/Scsi/ScsiBusDxe/ScsiBusDxe.inf \
    MdeModulePkg/Bus/Scsi/ScsiDiskDxe/ScsiDiskDxe.inf; do
    grep -q "^ *$driver" "$tree/$platform" ||
        sed -i "0,/^\[Components\]/s||&\n  $driver|" "$tree/$platform"
    grep -q "^ *INF .*$driver" "$tree/$volume" ||
        sed -i "0,/^INF .*EnhancedFatDxe\/Fat.inf/s||&\nINF $driver|" "$tree/$volume"
    grep -q "^INF .*$driver" "$tree/$volume" || die "cannot add $driver to this edk2's $volume"
done

say "building ($kind)"
(
    cd "$tree"
    export WORKSPACE=$tree EDK_TOOLS_PATH=$tree/BaseTools PYTHON_COMMAND=python3
    export CONF_PATH=$tree/Conf
    mkdir -p Conf
    make -C BaseTools -j"$(nproc)"
    set +u
    # shellcheck disable=SC1091
    . ./edksetup.sh
    set -u
    build -a X64 -t GCC5 -b "$kind" -n "$(nproc)" -p "$platform"
) >>"$out.log" 2>&1 || die "the build failed: see $out.log"
built=$(find "$tree/Build" -path "*${kind}_GCC5/FV/BHYVE.fd" -print -quit)
[ -s "$built" ] || die "the build left no BHYVE.fd: see $out.log"
cp "$built" "$out.new"
mv "$out.new" "$out"
rm -f "$out.log"
say "$out"
