#!/bin/sh
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# Looks at a running guest made from an image, with a metadata service on its
# second serial port. Run inside as root:
#
#   cat ../tap.sh check-guest.sh | ssh root@guest sh -s UUID HOSTNAME
#
# Prints one line per check in TAP form; exit status 1 if any check fails.

set -u

uuid=${1:?usage: check-guest.sh UUID HOSTNAME}
name=${2:?usage: check-guest.sh UUID HOSTNAME}

cloud_init_done() {
    timeout 450 cloud-init status --wait --long
    case $? in
    0 | 2) cloud-init status | grep -q 'status: done' && return ;;
    esac
    systemctl list-jobs --no-pager
    systemd-analyze blame --no-pager | head -n 20
    tail -n 20 /var/log/cloud-init.log
    return 1
}
datasource() { cloud-init query ds.meta_data.instance-id 2>/dev/null || cat /run/cloud-init/cloud-id; grep -q SmartOS /run/cloud-init/status.json; }
instance() { [ "$(cat /var/lib/cloud/data/instance-id)" = "$uuid" ]; }
metadata() { [ "$(mdata-get sdc:uuid)" = "$uuid" ]; }
missing_key() { mdata-get no-such-key; [ $? -eq 1 ]; }
write_key() { mdata-put imgforge-test value && [ "$(mdata-get imgforge-test)" = value ] && mdata-delete imgforge-test; }
host_id() { [ "$(hostid)" = "$(printf %s "$uuid" | cut -c1-8)" ]; }
host_name() { uname -n; [ "$(uname -n)" = "${name%%.*}" ]; }
resolves() { getent hosts "$name" && getent hosts "${name%%.*}"; }
name_servers() { cat /etc/resolv.conf; grep -q '^nameserver' /etc/resolv.conf; }
units() { systemctl is-active triton-guest.service fstrim.timer serial-getty@ttyS0.service; }
nothing_failed() {
    failed=$(systemctl list-units --failed --no-legend --plain)
    echo "$failed"
    [ -z "$failed" ]
}
marker() { [ -e /lib/smartdc/.firstboot-complete-do-not-delete ]; }
host_keys() { [ -s /etc/ssh/ssh_host_ed25519_key ]; }
machine_id() { grep -qE '^[0-9a-f]{32}$' /etc/machine-id; }
grown() {
    device=$(findmnt -no SOURCE /)
    disk=/sys/class/block/${device##*/}
    end=$(($(cat "$disk/start") + $(cat "$disk/size")))
    whole=$(cat "$disk/../size")
    echo "the root partition ends at sector $end of $whole"
    [ $((whole - end)) -lt 8192 ]
}
interface() { ip -o link; ip route | grep -q '^default'; }
one_source() {
    grep -rhoE 'https?://[^ ]+' /etc/apt/sources.list.d /etc/apt/sources.list 2>/dev/null | sort -u
    ! grep -rqE '10\.0\.2\.2|127\.0\.0\.1|localhost' /etc/apt
}
sshd_policy() {
    sshd -T | grep -E '^(permitrootlogin|passwordauthentication|kbdinteractiveauthentication)'
    sshd -T | grep -qxE 'permitrootlogin (prohibit-password|without-password)' &&
        sshd -T | grep -qx 'passwordauthentication no'
}

check 'cloud-init is done' cloud_init_done
check 'cloud-init took SmartOS' datasource
check 'the instance is the guest'\''s UUID' instance
check 'mdata-get reads the UUID' metadata
check 'a key that is not there is exit status 1' missing_key
check 'mdata-put, mdata-get, mdata-delete' write_key
check 'the host id comes from the UUID' host_id
check 'the host name comes from metadata' host_name
check 'the host name resolves' resolves
check 'the first boot is marked' marker
check 'the guest'\''s units run' units
check 'no unit failed' nothing_failed
check 'new host keys' host_keys
check 'new machine id' machine_id
check 'the root file system has grown to the disk'\''s end' grown
check 'a default route' interface
check 'name servers' name_servers
check 'packages come from public mirrors alone' one_source
check 'sshd takes keys only' sshd_policy

conclude
