#!/usr/bin/env python3
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The same installed tiny system on imgforge's own monitor and on QEMU, for what compares them."""

import json
import os
import shutil
import socket
import struct
import subprocess
import time

MEMORY_MIB = 512
CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.fd"
PORT = "/dev/ttyS0"


def run(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def prepare(disk, work, guest):
    """A copy of an installed tiny system that runs `guest`, and whose kernel speaks."""
    image, start, config = work / "image.raw", work / "rcS", work / "grub.cfg"
    run("cp", "--sparse=always", disk, image)
    # The GPT's first two entries: 128 bytes each from sector 2, the first sector at 32.
    with open(image, "rb") as file:
        table = file.read(34 * 512)[2 * 512:]
    boot, system = (512 * struct.unpack_from("<Q", table, at + 32)[0] for at in (0, 128))
    start.write_text(guest)
    for command in ["rm /etc/init.d/rcS", f"write {start} /etc/init.d/rcS",
                    "set_inode_field /etc/init.d/rcS mode 0100755"]:
        run("debugfs", "-w", "-R", command, f"{image}?offset={system}")
    place = "::/EFI/debian/grub.cfg"
    run("mcopy", "-i", f"{image}@@{boot}", place, config)
    config.write_text(config.read_text().replace(" quiet", ""))
    run("mcopy", "-o", "-i", f"{image}@@{boot}", config, place)
    return image


def files_for(place, image):
    """The files of one machine: a copy of the disk, and room for the rest."""
    files = {name: str(place / name) for name in
             ["disk", "variables", "serial", "log", "control", "vnc", "pid"]}
    subprocess.run(["cp", "--sparse=always", image, files["disk"]], check=True)
    shutil.copy(VARIABLES, files["variables"])
    (place / "serial").touch()
    return files


def ours(imgforge, files, cpus=1, link=None):
    rom = os.environ.get("IMGFORGE_BHYVE_ROM")
    config = {
        "name": "lab", "hypervisor": "kvm", "kernel_name": "lab", "cpus": cpus,
        "memory_mib": MEMORY_MIB,
        "firmware": rom or CODE, "profile": "bhyve" if rom else "ovmf",
        "variables": None if rom else files["variables"], "disk": files["disk"],
        "scratch_disk": False, "cdrom": None, "serial_log": files["serial"], "log": files["log"],
        "network": None, "link": link, "mac": [2, 0, 0, 0, 0, 1], "control": files["control"],
        "vnc": files["vnc"], "stop_at_reset": False, "smartos": False,
    }
    process = subprocess.Popen(
        [imgforge, "vmm", "--pid-file", files["pid"]], stdin=subprocess.PIPE
    )
    process.stdin.write(json.dumps(config).encode())
    process.stdin.close()
    begin(files["control"])
    return process


def begin(path):
    """The control socket: the guest runs when it is told to."""
    deadline = time.monotonic() + 30
    while True:
        try:
            control = socket.socket(socket.AF_UNIX)
            control.connect(path)
            break
        except OSError:
            control.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
    answers = control.makefile("r")
    answers.readline()
    for command in ["qmp_capabilities", "cont"]:
        control.sendall(json.dumps({"execute": command}).encode() + b"\n")
        answers.readline()


def qemu(_, files, machine="q35"):
    return subprocess.Popen([
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", f"{machine},accel=kvm",
        "-cpu", "host", "-smp", "1", "-m", str(MEMORY_MIB), "-display", "none",
        "-drive", f"if=pflash,format=raw,readonly=on,file={CODE}",
        "-drive", f"if=pflash,format=raw,file={files['variables']}",
        "-blockdev", json.dumps({
            "driver": "raw", "node-name": "disk", "discard": "unmap",
            "file": {"driver": "file", "filename": files["disk"], "aio": "threads"},
        }),
        "-device", "virtio-blk-pci,drive=disk,bootindex=1", "-device", "virtio-rng-pci",
        "-device", "VGA", "-vnc", f"unix:{files['vnc']}",
        "-chardev", f"file,id=serial,path={files['serial']}", "-serial", "chardev:serial",
    ])


def wait_for(text, serial, process, deadline):
    while text not in serial.read_bytes().decode(errors="replace"):
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"the guest never said {text!r}:\n" + serial.read_text(errors="replace")[-800:])
        time.sleep(0.02)
