#!/usr/bin/python3
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
"""Plays the SmartOS metadata service for a virtual machine's second serial port.

  mock_metadata.py --connect SOCKET --metadata FILE.json [--log FILE] [--once]

Like the real agent it connects to a UNIX socket that the hypervisor listens on
(QEMU: -chardev socket,path=SOCKET,server=on,wait=off,id=m -device isa-serial,chardev=m,
after a first serial port), and connects again whenever the machine is started
anew. FILE is one object: keys are metadata keys, "sdc:*" included. Every
question is logged as one JSON line: verb and key, never a value.
"""

import argparse
import base64
import binascii
import json
import re
import socket
import sys
import time
import zlib

FRAME = re.compile(r"V2 ([0-9]+) ([0-9a-f]{8}) (([0-9a-f]+) ([A-Z]+)(?: (\S+))?)")

# The only structured values that the service turns into text.
AS_JSON = ("sdc:nics", "sdc:resolvers", "sdc:routes")

# A client that sends more than this without a line end is broken.
LINE_LIMIT = 1 << 20


def b64(data):
    return base64.b64encode(data).decode("ascii")


def frame(request, status, payload=None):
    body = f"{request} {status}" + ("" if not payload else f" {payload}")
    return f"V2 {len(body)} {zlib.crc32(body.encode()):08x} {body}"


class Store:
    """Metadata by key."""

    def __init__(self, values):
        self.values = dict(values)

    def get(self, key):
        """(status, bytes) as the service would answer."""
        if key not in self.values:
            return "NOTFOUND", b""
        value = self.values[key]
        if isinstance(value, str):
            return "SUCCESS", value.encode()
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return "SUCCESS", str(value).encode()
        if key in AS_JSON:
            return "SUCCESS", json.dumps(value).encode()
        return "FAILURE", b"not a text"

    def keys(self):
        return [key for key in self.values if not key.startswith("sdc:")]

    def put(self, key, value):
        if key.startswith("sdc:"):
            return "FAILURE", b"read-only"
        self.values[key] = value.decode("utf-8", "replace")
        return "SUCCESS", b"OK"

    def delete(self, key):
        if key.startswith("sdc:"):
            return "FAILURE", b"read-only"
        self.values.pop(key, None)
        return "SUCCESS", b"OK"


class Session:
    """One connection: takes lines, gives lines."""

    def __init__(self, store, log=lambda verb, key: None):
        self.store = store
        self.log = log

    def answer(self, line):
        """The lines to send back; none for a damaged frame."""
        if line == "":
            return ["invalid command"]
        if line.startswith("V2 "):
            return self.version2(line)
        verb, _, argument = line.partition(" ")
        if verb == "NEGOTIATE" and argument:
            self.log("NEGOTIATE", argument)
            return ["V2_OK" if argument == "V2" else "FAILURE"]
        if verb in ("NEGOTIATE", "GET") and not argument:
            return ["invalid command"]
        if verb == "GET":
            self.log("GET1", argument)
            return self.plain(*self.store.get(argument))
        if verb == "KEYS":
            self.log("KEYS1", "")
            return self.plain("SUCCESS", "\n".join(self.store.keys()).encode())
        return ["FAILURE"]

    @staticmethod
    def plain(status, value):
        if status != "SUCCESS":
            return [status]
        lines = value.decode("utf-8", "replace").split("\n")
        return ["SUCCESS", *("." + line if line.startswith(".") else line for line in lines), "."]

    def version2(self, line):
        match = FRAME.fullmatch(line)
        if not match:
            return []
        length, checksum, body, request, verb, payload = match.groups()
        if int(length) != len(body) or int(checksum, 16) != zlib.crc32(body.encode()):
            return []
        try:
            status, value = self.verb(verb, base64.b64decode(payload or "", validate=True))
        except (binascii.Error, ValueError):
            status, value = "FAILURE", b"bad request"
        return [frame(request, status, b64(value))]

    def verb(self, verb, data):
        if verb == "KEYS":
            self.log("KEYS", "")
            return "SUCCESS", "\n".join(self.store.keys()).encode()
        if verb == "PUT":
            key, value = (base64.b64decode(part, validate=True) for part in data.split(b" "))
            self.log("PUT", key.decode("utf-8", "replace"))
            return self.store.put(key.decode("utf-8"), value)
        key = data.decode("utf-8")
        self.log(verb, key)
        if verb == "GET":
            return self.store.get(key)
        if verb == "DELETE":
            return self.store.delete(key)
        return "FAILURE", b"unknown request"


def serve(channel, session):
    """Answers until the other end closes. `channel` has recv and sendall."""
    buffer = b""
    while True:
        try:
            data = channel.recv(4096)
        except ConnectionResetError:
            return
        if not data:
            return
        buffer += data
        if len(buffer) > LINE_LIMIT:
            buffer = b""
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            for reply in session.answer(line.decode("ascii", "replace")):
                try:
                    channel.sendall(reply.encode() + b"\n")
                except (BrokenPipeError, ConnectionResetError):
                    return


def connect(path):
    """Waits for the hypervisor's socket, as the agent does."""
    while True:
        channel = socket.socket(socket.AF_UNIX)
        try:
            channel.connect(path)
            return channel
        except (FileNotFoundError, ConnectionRefusedError):
            channel.close()
            time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--connect", required=True, metavar="SOCKET")
    parser.add_argument("--metadata", required=True, metavar="FILE")
    parser.add_argument("--log", metavar="FILE", default="/dev/stderr")
    parser.add_argument("--once", action="store_true", help="end with the first connection")
    options = parser.parse_args()
    with open(options.metadata, encoding="utf-8") as file:
        values = json.load(file)
    if not isinstance(values, dict):
        sys.exit(f"{options.metadata}: not an object of keys and values")

    with open(options.log, "a", encoding="utf-8", buffering=1) as out:

        def log(verb, key):
            print(json.dumps({"verb": verb, "key": key}), file=out)

        store = Store(values)
        while True:
            with connect(options.connect) as channel:
                log("CONNECT", "")
                serve(channel, Session(store, log))
            if options.once:
                return


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
