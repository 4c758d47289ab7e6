#!/usr/bin/env python3
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""An installed tiny system on imgforge's own monitor with several processors, plugged into a tap.

    processors.py IMGFORGE DISK COUNT

Runs as root where KVM works. DISK is an installed tiny system, as a raw file; it is not changed.
The guest restarts once, has its address from a DHCP server beside the tap, fetches a file much
longer than a frame from there, and powers off. Exits with 1 and the reason when one of that fails.
IMGFORGE_BHYVE_ROM is the machine's firmware, if set.
"""

import functools
import hashlib
import http.server
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

from machines import PORT, files_for, ours, prepare, run, wait_for

PATIENCE = 400
TAP, SERVER, GUEST_ADDRESS = "lab0", "10.9.0.1", "10.9.0.7"
LENGTH = 1 << 20
GUEST = f"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
say() {{ echo "guest: $*" >{PORT}; }}
if [ ! -e /restarted ]; then
    say restarts with $(nproc) processors
    : >/restarted
    sync
    reboot -f
fi
say has $(nproc) processors
# Each has had interrupts of its own timer.
say ticks $(awk '$1 == "LOC:" {{ for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i > 0; print n }}' /proc/interrupts)
modprobe virtio_net
ip link set eth0 up
udhcpc -i eth0 -n -q -t 20 -T 2 -s /etc/udhcpc/default.script >/dev/null 2>&1
say address $(ip -4 -o addr show dev eth0 | awk '{{ print $4 }}')
say file $(wget -q -O - http://{SERVER}:8000/file | sha256sum)
say ends
poweroff -f
"""


def network(place):
    """The tap, with a DHCP server and a web server beside it; the digest of the latter's file."""
    run("ip", "tuntap", "add", "dev", TAP, "mode", "tap")
    run("ip", "address", "add", f"{SERVER}/24", "dev", TAP)
    run("ip", "link", "set", TAP, "up")
    (place / "leases").touch()
    (place / "udhcpd.conf").write_text(
        f"start {GUEST_ADDRESS}\nend {GUEST_ADDRESS}\ninterface {TAP}\nlease_file {place}/leases\n"
        f"pidfile {place}/udhcpd.pid\noption subnet 255.255.255.0\noption lease 86400\n"
    )
    dhcp = subprocess.Popen(["/bin/busybox", "udhcpd", "-f", str(place / "udhcpd.conf")])
    content = os.urandom(LENGTH)
    (place / "web").mkdir()
    (place / "web/file").write_bytes(content)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=place / "web")
    server = http.server.ThreadingHTTPServer((SERVER, 8000), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return dhcp, hashlib.sha256(content).hexdigest()


def judge(serial, count, digest):
    said = [line.split("guest: ", 1)[1].strip() for line in serial.splitlines() if "guest: " in line]
    wanted = [
        f"restarts with {count} processors", f"has {count} processors", f"ticks {count}",
        f"address {GUEST_ADDRESS}/24", f"file {digest}  -", "ends",
    ]
    if said != wanted:
        raise SystemExit(f"the guest said {said}, not {wanted}:\n{serial[-1500:]}")


def main():
    imgforge, disk, count = sys.argv[1:]
    work = pathlib.Path(tempfile.mkdtemp(dir="/mnt/scratch"))
    image = prepare(disk, work, GUEST)
    place = work / "machine"
    place.mkdir()
    dhcp, digest = network(work)
    serial = place / "serial"
    begin = time.monotonic()
    process = ours(imgforge, files_for(place, image), cpus=int(count), link={"name": TAP})
    try:
        wait_for("guest: ends", serial, process, begin + PATIENCE)
        status = process.wait(60)
    finally:
        process.kill()
        dhcp.kill()
    if status != 0:
        raise SystemExit(f"the monitor ended with {status}")
    judge(serial.read_text(errors="replace"), count, digest)
    print(f"processors: {count}, with a restart and a power-off, in {time.monotonic() - begin:.0f} s")


main()
