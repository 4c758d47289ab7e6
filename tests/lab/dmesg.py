#!/usr/bin/env python3
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The kernel's errors and warnings on imgforge's own machine beside those on QEMU's.

    dmesg.py IMGFORGE DISK

Runs as root where KVM works. DISK is an installed tiny system, as a raw file; it is not changed.
QEMU's is an i440FX too. Prints what the same kernel says on one machine only, and exits with 1 when
it says something on ours that it does not on QEMU's, other than what is expected.
IMGFORGE_BHYVE_ROM is our machine's firmware, if set.
"""

import functools
import pathlib
import re
import sys
import tempfile
import time

from machines import PORT, files_for, ours, prepare, qemu, wait_for

# How long a guest may take.
PATIENCE = 240
# Errors and worse, and warnings.
WORST = 4
BEGIN, END = "dmesg: begin", "dmesg: end"
GUEST = f"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
# What the kernel still has to say would mix with this.
echo 1 >/proc/sys/kernel/printk
{{ echo; echo "{BEGIN}"; dmesg -r; echo "{END}"; }} >{PORT}
while :; do sleep 3600; done
"""
# What a difference that is meant makes the kernel say.
EXPECTED = {
    "i8042: PNP: PS/2 appears to have AUX port disabled": "there is no mouse",
}
# What a busy host makes it say on any machine, sometimes. A clock that is really wrong is off by more
# than a third.
CALIBRATION = re.compile(r"APIC calibration not consistent with PM-Timer: (\d+)ms instead of (\d+)ms")
BUSY = ("clocksource: Long readout interval", "hrtimer: interrupt took")
# The name of the machine, and bytes of code with addresses in them, within a report of both.
NAMES = ("Hardware name:", "Code:")
LINE = re.compile(r"<(\d+)>\[ *[\d.]+\] ?(.*)")


def said(start, imgforge, image):
    """What the kernel says on a machine: level and text of each line."""
    with tempfile.TemporaryDirectory(dir=image.parent) as place:
        place = pathlib.Path(place)
        process = start(imgforge, files_for(place, image))
        try:
            wait_for(END, place / "serial", process, time.monotonic() + PATIENCE)
        finally:
            process.kill()
            process.wait()
        text = (place / "serial").read_text(errors="replace")
    lines = text.split(BEGIN, 1)[1].split(END, 1)[0].splitlines()
    found = [LINE.fullmatch(line.strip()) for line in lines]
    return [(int(match[1]) & 7, match[2]) for match in found if match]


def kind(text):
    """A line without what differs from one start to the next, and from slot to slot."""
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]*\d[0-9a-f:.]*\b", "#", text)


def complaints(lines):
    found = {kind(text): text for level, text in lines if level <= WORST}
    return {one: text for one, text in found.items() if not text.startswith(NAMES)}


def reason(text):
    measured = CALIBRATION.match(text)
    if measured and 2 * int(measured[2]) < 3 * int(measured[1]) < 4 * int(measured[2]):
        return "the host was busy"
    if text.startswith(BUSY):
        return "the host was busy"
    return next((why for start, why in EXPECTED.items() if text.startswith(start)), None)


def main():
    imgforge, disk = sys.argv[1:]
    work = pathlib.Path(tempfile.mkdtemp(dir="/mnt/scratch"))
    image = prepare(disk, work, GUEST)
    i440fx = functools.partial(qemu, machine="pc")
    mine, theirs = (said(start, imgforge, image) for start in (ours, i440fx))
    for who, lines in [("imgforge", mine), ("QEMU", theirs)]:
        if not any("Linux version" in text for _, text in lines):
            raise SystemExit(f"the kernel's first line is missing on {who}'s machine")
    mine_only = complaints(mine).keys() - complaints(theirs).keys()
    theirs_only = complaints(theirs).keys() - complaints(mine).keys()
    print(f"dmesg: {len(complaints(mine))} kinds of complaints on ours, {len(complaints(theirs))} on QEMU's")
    for text in sorted(complaints(theirs)[one] for one in theirs_only):
        print(f"dmesg: on QEMU's only: {text}")
    wrong = 0
    for text in sorted(complaints(mine)[one] for one in mine_only):
        why = reason(text)
        wrong += why is None
        print(f"dmesg: on ours only: {text}" + (f" (expected: {why})" if why else ""))
    sys.exit(1 if wrong else 0)


main()
