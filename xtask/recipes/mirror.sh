#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Prints the Debian mirror that this machine's apt uses for its own packages,
# without a slash at the end. DEBIAN_MIRROR overrides it.
set -euo pipefail

mirror=${DEBIAN_MIRROR:-}
if [ -z "$mirror" ]; then
    # shellcheck disable=SC2016  # the dollar belongs to apt's format
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep -m1 '/debian/\?$' || true)
fi
if [ -z "$mirror" ]; then
    echo "mirror: error: apt knows no Debian mirror; run \`apt-get update\` or set DEBIAN_MIRROR" >&2
    exit 1
fi
printf '%s\n' "${mirror%/}"
