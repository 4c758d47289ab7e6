#!/bin/sh
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Runs in the installed tiny system: fails unless the installation is whole.
set -eu

fail() { echo "check: $*" >&2; exit 1; }

grep -q '^Welcome to ' /etc/motd || fail "/etc/motd was not written"
[ -s /etc/imgforge-built ] || fail "/etc/imgforge-built was not written"
[ -s /boot/vmlinuz ] || fail "no kernel in /boot"
[ -s /boot/efi/EFI/BOOT/BOOTX64.EFI ] || fail "no boot loader on the removable path"
grep -q '^root:\$6\$' /etc/shadow || fail "root has no SHA-512 password"
[ "$(stat -c %a /root/.ssh/authorized_keys)" = 600 ] || fail "authorized_keys is not private"
case $(cat /proc/cmdline) in *root=LABEL=tinyroot*) ;; *) fail "not booted from the disk" ;; esac
echo "check: all well"
