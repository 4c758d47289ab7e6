#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Prints a mirror that this machine's apt uses, without a slash at the end.
#
#   mirror.sh                  Debian's packages; DEBIAN_MIRROR overrides it
#   mirror.sh security SUITE   security updates of a release, e.g. trixie; prints an empty
#                              line when apt has no such mirror or it lacks the release;
#                              DEBIAN_SECURITY_MIRROR overrides it
set -euo pipefail

# first PATTERN: the first package source of apt that matches
first() {
    # shellcheck disable=SC2016  # the dollar belongs to apt's format
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 "$1" || true
}

case ${1:-} in
    '')
        mirror=${DEBIAN_MIRROR:-$(first '/debian/\?$')}
        if [ -z "$mirror" ]; then
            echo "mirror: error: apt knows no Debian mirror; run \`apt-get update\` or set DEBIAN_MIRROR" >&2
            exit 1
        fi
        ;;
    security)
        mirror=${DEBIAN_SECURITY_MIRROR:-$(first '/debian-security/\?$')}
        release=${mirror%/}/dists/${2:?usage: mirror.sh security SUITE}-security/Release
        [ -z "$mirror" ] || curl -fsIL --max-time 20 -o /dev/null "$release" || mirror=
        ;;
    *)
        echo "usage: mirror.sh [security SUITE]" >&2
        exit 2
        ;;
esac
printf '%s\n' "${mirror%/}"
