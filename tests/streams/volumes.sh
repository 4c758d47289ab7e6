#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# Steps that checks of send streams share: to be sourced, with `imgforge` set, in
# a directory that holds disk.raw, beside a pool named zones.
# shellcheck disable=SC2154

receive() { # as imgadm does
    gzip -cdfq "$1" | zfs receive "zones/$2-partial" || return 1
    [ "$(zfs list -H -o name -t snapshot | grep -c "^zones/$2-partial@")" = 1 ] || return 1
    zfs list -H -t snapshot "zones/$2-partial@final" || return 1
    zfs rename "zones/$2-partial" "zones/$2"
}
is() { # DATASET PROPERTY VALUE
    value=$(zfs get -H -p -o value "$2" "zones/$1") || return 1
    [ "$value" = "$3" ] || { echo "$2 is $value, not $3"; return 1; }
}
field() { "$imgforge" stream info --json "$1" | sed -n "s/^ *\"$2\": \"\\{0,1\\}\\([^\",]*\\)\"\\{0,1\\},\\{0,1\\}\$/\\1/p"; }
same() { # STREAM
    rm -f back.raw
    "$imgforge" convert "$1" back.raw --from zfs --no-progress && cmp disk.raw back.raw
}
