# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# What the recipes share: messages, tool checks, and packages from the mirror.
# To be sourced by bash. A recipe sets `recipe` (its name in messages), `suite`
# and `cache` first, and calls `open_lists` before `field` and `deb`.
# shellcheck shell=bash disable=SC2154

arch=amd64
recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s: %s\n' "$recipe" "$*" >&2; }
die() { printf '%s: error: %s\n' "$recipe" "$*" >&2; exit 1; }

# need 'TOOL PACKAGE'...: stops with the apt command when a tool is missing.
need() {
    local pair missing=() tools=()
    for pair in "$@"; do
        command -v "${pair% *}" >/dev/null || { tools+=("${pair% *}"); missing+=("${pair#* }"); }
    done
    [ ${#tools[@]} -eq 0 ] || die "not installed: ${tools[*]}; run: apt-get install ${missing[*]}"
}

# open_workspace: makes the cache and a work directory that vanishes at exit.
open_workspace() {
    mkdir -p "$cache"
    cache=$(cd "$cache" && pwd)
    work=$(mktemp -d "$cache/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mirror=$("$recipes/mirror.sh")
}

# fetch URL FILE: keeps what is already there.
fetch() {
    [ -s "$2" ] && return 0
    curl -fsSL --retry 3 -o "$2.part" "$1" || die "cannot fetch $1"
    mv "$2.part" "$2"
}

# open_lists: reads the package list of the suite; a list older than a day is
# fetched anew, for the mirror forgets old versions.
open_lists() {
    local list=$cache/$suite-packages.xz
    say "reading the package list of $suite"
    find "$cache" -maxdepth 1 -name "$suite-*.xz" -mmin +1440 -delete
    fetch "$mirror/dists/$suite/main/binary-$arch/Packages.xz" "$list"
    xz -dc "$list" >"$work/packages"
    awk '$1 == "Package:" { n = $2 } $1 == "Filename:" { f = $2 } $1 == "SHA256:" { print n, f, $2 }' \
        "$work/packages" >"$work/index"
}

# field LIST PACKAGE FIELD: the first word of a field.
field() {
    awk -v p="$2" -v f="$3:" '$1 == "Package:" { n = $2 } $1 == f && n == p { print $2; exit }' "$1"
}

# deb PACKAGE DIR: unpacks a package, checked against the list's digest.
deb() {
    local path file want
    read -r _ path want < <(grep -m1 "^$1 " "$work/index") || die "package $1 is not in $suite"
    file=$cache/${path##*/}
    fetch "$mirror/${path//+/%2b}" "$file"
    echo "$want  $file" | sha256sum --check --status || { rm -f "$file"; die "$1: digest differs from the package list"; }
    dpkg-deb -x "$file" "$2"
}
