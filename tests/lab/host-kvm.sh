# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# The host of tiny.sh with KVM: its network is passt's.
# shellcheck shell=bash disable=SC2034,SC2154

# passt wants an interface with a default route, wherever it leads.
ip link add outside type dummy && ip link set outside up || exit 2
ip addr add 192.0.2.2/24 dev outside && ip route add default via 192.0.2.1 || exit 2

network=()
boot_wait=30s
patience=()
host() { "$@"; }
gone() { :; }
alike() { tests/lab/dmesg.py "$imgforge" "$(find "$out" -name '*.raw' -print -quit)" >&2; }
more() {
    check "it complains of nothing that it does not complain of on QEMU's machine" alike
}
