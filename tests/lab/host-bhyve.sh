# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# The host of tiny.sh with bhyve: a zone of SmartOS, as far as a build sees one.
# The model plays its kernel, a tap device the VNIC vm0, which has a DHCP server
# beside it, and a script dladm.
# shellcheck shell=bash disable=SC2034,SC2154

model=$(realpath "${6:?bhyve needs the library that plays its kernel}")
mac=2:8:20:1:2:3
guest=10.7.0.10
server=10.7.0.1
bin=/mnt/scratch/bin
zone=/mnt/scratch/zone
mkdir -p "$bin" "$zone"

ip tuntap add dev vm0 mode tap && ip addr add "$server/24" dev vm0 && ip link set vm0 up || exit 2

cat >"$bin/dladm" <<DLADM
#!/bin/sh
case "\$*" in
    "show-vnic -p -o macaddress vm0") echo $mac ;;
    "show-linkprop -c -o value -p mtu vm0") echo 1500 ;;
    *) echo "dladm: invalid link name: \$*" >&2; exit 1 ;;
esac
DLADM
chmod 0755 "$bin/dladm"

# The one lease is the guest's.
cat >/mnt/scratch/udhcpd.conf <<DHCP
start $guest
end $guest
interface vm0
lease_file /mnt/scratch/leases
pidfile /mnt/scratch/udhcpd.pid
option subnet 255.255.255.0
option lease 86400
static_lease 02:08:20:01:02:03 $guest
DHCP
: >/mnt/scratch/leases
/bin/busybox udhcpd -f /mnt/scratch/udhcpd.conf >/mnt/scratch/udhcpd.log 2>&1 &

# bhyve has no memory that reads like memory and whose writes are exits, so each
# byte that firmware reads of its variables is an exit: a minute and more here.
boot_wait=4m
patience=(-e 's/answer_timeout: .*/answer_timeout: 6m/' -e 's/^  timeout: 10m/  timeout: 20m/'
    -e 's/default: 3m/default: 8m/' -e 's/^  timeout: 1m/  timeout: 5m/')
network=(--nic vm0 --guest-address "$guest" --http-address "$server")
host() {
    env PATH="$bin:$PATH" LD_PRELOAD="$model" VMM_MODEL_STATE="$zone" \
        VMM_MODEL_LINKS="vm0,7,$mac,tap:vm0" "$@"
}
gone() { host ls /dev/vmm; [ -z "$(host ls /dev/vmm)" ]; }
frames() { # in both directions, by the kernel's rings: there is no other way
    local counters=/sys/class/net/vm0/statistics
    head "$counters/rx_packets" "$counters/tx_packets"
    [ "$(cat "$counters/rx_packets")" -gt 100 ] && [ "$(cat "$counters/tx_packets")" -gt 100 ]
}
more() {
    check "the frames went by the link" frames
}
