#!/usr/bin/env python3
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""imgforge's own monitor beside QEMU on KVM: the same firmware, disk and guest, taking turns.

    bench_vm.py IMGFORGE DISK RUNS

Runs as root where KVM works. DISK is an installed tiny system, as a raw file; it is not changed.
Prints a table with ratios, and exits with 1 when a goal is missed.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from machines import MEMORY_MIB, PORT, files_for, ours, prepare, qemu, wait_for

TRACING = pathlib.Path("/sys/kernel/tracing")
# How long a guest may take to its last mark, and how long it is watched then.
PATIENCE = 240
IDLE = 15

# What the guest does instead of its own start-up: marks, and its disk read and written past all
# caches of its own, each between two readings of its clock.
GUEST = f"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
echo "bench: user space" >{PORT}
now() {{ cut -d' ' -f1 /proc/uptime; }}
measure() {{ before=$(now); dd $2 2>/dev/null; echo "bench: $1 $before $(now)" >{PORT}; }}
measure read-1M 'if=/dev/vda of=/dev/null bs=1M count=256 iflag=direct'
measure read-4K 'if=/dev/vda of=/dev/null bs=4k count=4000 iflag=direct'
measure write-1M 'if=/dev/zero of=/bench bs=1M count=64 oflag=direct'
measure write-4K 'if=/dev/zero of=/bench bs=4k count=4000 oflag=direct conv=notrunc'
rm /bench
echo "bench: idle" >{PORT}
while :; do sleep 3600; done
"""
MARKS = {
    "boot loader": "Welcome to GRUB",
    "kernel": "Linux version",
    "user space": "bench: user space",
}
READS = ["read-1M", "read-4K", "write-1M", "write-4K"]
# Name, unit, and the goal for ours / QEMU's.
ROWS = (
    [("first instruction", "ms", None)]
    + [(mark, "s", 0.7 if mark != "boot loader" else None) for mark in MARKS]
    + [(name, "s", 1.0) for name in READS]
    + [("memory beyond the guest's", "MiB", None), ("idle", "% CPU", 1.0)]
)
# Goals that are not ratios.
ABSOLUTE = {"first instruction": 50, "memory beyond the guest's": 32}


def trace(on):
    if on:
        (TRACING / "trace").write_text("\n")
    (TRACING / "events/kvm/kvm_entry/enable").write_text("1" if on else "0")


def first_entry(begin, process, deadline):
    """Seconds from the start to the guest's first instruction."""
    while time.monotonic() < deadline and process.poll() is None:
        with open(TRACING / "trace") as events:
            line = next((line for line in events if "kvm_entry" in line), None)
        if line:
            trace(False)
            stamp = next(word for word in line.split() if word.endswith(":") and "." in word)
            return float(stamp.rstrip(":")) - begin
        time.sleep(0.005)
    raise SystemExit("no guest was entered")


def other_memory(pid):
    """MiB in RAM that are not the guest's, which is by far the largest mapping."""
    kilobytes, size = 0, 0
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if words[0] == "Size:":
            size = int(words[1])
        elif words[0] == "Rss:" and size < MEMORY_MIB * 1024:
            kilobytes += int(words[1])
    return kilobytes / 1024


def cpu_time(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(start, imgforge, image):
    with tempfile.TemporaryDirectory(dir=image.parent) as place:
        place = pathlib.Path(place)
        files = files_for(place, image)
        serial = place / "serial"
        trace(True)
        begin_time = time.clock_gettime(time.CLOCK_MONOTONIC)
        process = start(imgforge, files)
        result = {}
        try:
            deadline = time.monotonic() + PATIENCE
            result["first instruction"] = 1000 * first_entry(begin_time, process, deadline)
            for mark, text in MARKS.items():
                wait_for(text, serial, process, deadline)
                result[mark] = time.monotonic() - begin_time
            wait_for("bench: idle", serial, process, deadline)
            for line in serial.read_text(errors="replace").splitlines():
                words = line.split()
                if len(words) == 4 and words[0] == "bench:" and words[1] in READS:
                    result[words[1]] = float(words[3]) - float(words[2])
            time.sleep(5)
            before = cpu_time(process.pid)
            time.sleep(IDLE)
            result["idle"] = 100 * (cpu_time(process.pid) - before) / IDLE
            result["memory beyond the guest's"] = other_memory(process.pid)
        finally:
            process.kill()
            process.wait()
    return result


def median(values):
    middle = len(values) // 2
    ordered = sorted(values)
    return (ordered[middle] + ordered[-1 - middle]) / 2


def report(results):
    print(f"{'':28} {'imgforge':>10} {'QEMU':>10} {'ratio':>7}   goal")
    missed = 0
    for name, unit, goal in ROWS:
        mine, theirs = (median([run[name] for run in results[who]]) for who in ("ours", "qemu"))
        ratio = mine / theirs if theirs else float("inf")
        if name in ABSOLUTE:
            text, met = f"<= {ABSOLUTE[name]} {unit}", mine <= ABSOLUTE[name]
        elif goal is not None:
            text, met = f"<= {goal:.1f}", ratio <= goal
        else:
            text, met = "", True
        missed += not met
        print(f"{name + ', ' + unit:28} {mine:10.2f} {theirs:10.2f} {ratio:7.2f}   {text}{'' if met else '  MISSED'}")
    return missed


def main():
    imgforge, disk, runs = sys.argv[1:]
    (TRACING / "trace_clock").exists() or subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACING], check=True)
    (TRACING / "trace_clock").write_text("mono")
    # The first events are wanted, not the last ones.
    (TRACING / "options/overwrite").write_text("0")
    work = pathlib.Path(tempfile.mkdtemp(dir="/mnt/scratch"))
    image = prepare(disk, work, GUEST)
    results = {"ours": [], "qemu": []}
    for run in range(int(runs)):
        for who, start in [("ours", ours), ("qemu", qemu)]:
            results[who].append(measure(start, imgforge, image))
            print(f"run {run + 1}, {who}: {results[who][-1]}", file=sys.stderr, flush=True)
    sys.exit(1 if report(results) else 0)


main()
