#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# Unpacks Debian's zfs-fuse, a ZFS without a kernel module, into DIR: installed,
# it would conflict with zfsutils-linux.
#
#   zfs-fuse.sh DIR
set -euo pipefail

directory=${1:?usage: zfs-fuse.sh DIR}
[ -x "$directory/sbin/zfs-fuse" ] && exit 0
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
cd "$packages"
# As root, apt would fetch as a user who cannot write here.
fetch() { apt-get -qq -o APT::Sandbox::User=root download zfs-fuse libfuse2; }
fetch 2>/dev/null || { apt-get -qq update && fetch; }
cd - >/dev/null
rm -rf "$directory.new"
for package in "$packages"/*.deb; do
    dpkg -x "$package" "$directory.new"
done
rm -rf "$directory"
mv "$directory.new" "$directory"
