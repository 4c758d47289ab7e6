#!/bin/sh
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
#
# Checks that report in TAP form: to be sourced, or put before a script that is
# sent to a shell elsewhere.

number=0
failures=0

# check TEXT COMMAND...: the command's status decides
check() {
    text=$1
    shift
    number=$((number + 1))
    if said=$("$@" </dev/null 2>&1); then
        echo "ok $number - $text"
    else
        echo "not ok $number - $text"
        printf '%s\n' "$said" | head -n 40 | sed 's/^/# /'
        failures=$((failures + 1))
    fi
}

# The last line, and the script's exit status.
conclude() {
    echo "1..$number"
    [ "$failures" -eq 0 ]
}
