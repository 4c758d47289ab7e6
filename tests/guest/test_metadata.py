#!/usr/bin/python3
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
"""The image's metadata client against the mock service, over a pseudo-terminal."""

import base64
import fcntl
import importlib.machinery
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import tty
import unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
CLIENT = HERE.parents[1] / "ansible/roles/smartos_guest/files/smartdc/mdata"


def load(name, path):
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


client = load("mdata_client", CLIENT)
mock = load("mock_metadata", HERE / "mock_metadata.py")


class Terminal:
    """The service's end of a pseudo-terminal, with a socket's verbs."""

    def __init__(self, fd):
        self.fd = fd

    def recv(self, count):
        try:
            return os.read(self.fd, count)
        except OSError:
            return b""

    def sendall(self, data):
        os.write(self.fd, data)


class Vectors(unittest.TestCase):
    def test_requests_are_framed_as_the_protocol_says(self):
        self.assertEqual(
            client.frame(b"00000001", b"GET", client.encode(b"sdc:uuid")),
            b"V2 25 83379509 00000001 GET c2RjOnV1aWQ=",
        )
        self.assertEqual(client.frame(b"00000002", b"KEYS"), b"V2 13 740e9d96 00000002 KEYS")
        pair = client.encode(b"k") + b" " + client.encode(b"v")
        self.assertEqual(
            client.frame(b"00000003", b"PUT", client.encode(pair)),
            b"V2 25 b32b675c 00000003 PUT YXc9PSBkZz09",
        )

    def test_answers_are_read(self):
        self.assertEqual(
            client.parse(b"V2 21 265ae1d8 dc4fae17 SUCCESS W10="), (b"dc4fae17", "SUCCESS", b"[]")
        )
        self.assertEqual(
            client.parse(b"V2 17 203d705b 00000001 NOTFOUND"), (b"00000001", "NOTFOUND", b"")
        )

    def test_damaged_answers_are_dropped(self):
        for line in (
            b"",
            b"V2",
            b"invalid command",
            b"V2 20 265ae1d8 dc4fae17 SUCCESS W10=",
            b"V2 21 265ae1d9 dc4fae17 SUCCESS W10=",
            b"V2 21 265ae1d8 dc4fae17 SUCCESS W11=",
            b"V2 99999999999999999999 265ae1d8 dc4fae17 SUCCESS W10=",
            b"\xff\xfe",
        ):
            self.assertIsNone(client.parse(line), line)

    def test_mock_and_client_agree_on_checksums(self):
        line = mock.frame("00000001", "SUCCESS", mock.b64(b"11111111-2222-4333-8444-555555555555"))
        self.assertEqual(line.split()[:3], ["V2", "65", "39b26165"])


class Conversation(unittest.TestCase):
    values = {
        "sdc:uuid": "1234abcd-0000-4000-8000-000000000001",
        "sdc:nics": [{"interface": "net0"}],
        "root_authorized_keys": "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n",
        "empty": "",
        "number": 7,
        "object": {"a": 1},
        "large": "x" * 300_000,
    }

    def setUp(self):
        self.asked = []
        self.store = mock.Store(self.values)
        master, self.slave = os.openpty()
        tty.setraw(master)
        self.port = os.ttyname(self.slave)
        self.master = master
        session = mock.Session(self.store, lambda verb, key: self.asked.append((verb, key)))
        threading.Thread(
            target=mock.serve, args=(Terminal(master), session), daemon=True
        ).start()
        self.folder = tempfile.TemporaryDirectory()
        for name in client.VERBS:
            os.symlink(CLIENT, os.path.join(self.folder.name, name))

    def tearDown(self):
        os.close(self.slave)
        self.folder.cleanup()

    def run_verb(self, name, *arguments, stdin=b"", port=None):
        return subprocess.run(
            [sys.executable, os.path.join(self.folder.name, name), *arguments],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
            env={**os.environ, "MDATA_DEVICE": port or self.port},
        )

    def test_get(self):
        done = self.run_verb("mdata-get", "sdc:uuid")
        self.assertEqual((done.returncode, done.stdout), (0, b"1234abcd-0000-4000-8000-000000000001\n"))
        self.assertEqual(self.asked, [("NEGOTIATE", "V2"), ("GET", "sdc:uuid")])

    def test_values_of_every_kind(self):
        keys = self.run_verb("mdata-get", "root_authorized_keys").stdout
        self.assertEqual(keys, self.values["root_authorized_keys"].encode() + b"\n")
        self.assertEqual(self.run_verb("mdata-get", "empty").stdout, b"\n")
        self.assertEqual(self.run_verb("mdata-get", "number").stdout, b"7\n")
        self.assertIn(b"net0", self.run_verb("mdata-get", "sdc:nics").stdout)
        self.assertEqual(len(self.run_verb("mdata-get", "large").stdout), 300_001)

    def test_exit_codes(self):
        self.assertEqual(self.run_verb("mdata-get", "nothing").returncode, 1)
        failed = self.run_verb("mdata-get", "object")
        self.assertEqual((failed.returncode, failed.stderr), (2, b"mdata-get: not a text\n"))
        self.assertEqual(self.run_verb("mdata-get").returncode, 3)
        self.assertEqual(self.run_verb("mdata-list", "extra").returncode, 3)
        missing = self.run_verb("mdata-get", "a", port="/nonexistent")
        self.assertEqual(missing.returncode, 2)
        self.assertIn(b"cannot open /nonexistent", missing.stderr)

    def test_put_list_delete(self):
        self.assertEqual(self.run_verb("mdata-put", "a", "b c").returncode, 0)
        self.assertEqual(self.run_verb("mdata-put", "t", stdin=b"two\nlines").returncode, 0)
        self.assertEqual(self.run_verb("mdata-get", "t").stdout, b"two\nlines\n")
        self.assertEqual(self.run_verb("mdata-put", "sdc:x", "1").returncode, 2)
        listed = self.run_verb("mdata-list").stdout.split(b"\n")
        self.assertIn(b"a", listed)
        self.assertNotIn(b"sdc:uuid", listed)
        self.assertEqual(self.run_verb("mdata-delete", "a").returncode, 0)
        self.assertEqual(self.run_verb("mdata-get", "a").returncode, 1)

    def test_the_port_is_shared_by_a_lock(self):
        lock = os.open(self.port, os.O_RDWR | os.O_NOCTTY)
        fcntl.lockf(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.7, os.close, [lock])
        timer.start()
        start = time.monotonic()
        done = self.run_verb("mdata-get", "number")
        self.assertEqual(done.stdout, b"7\n")
        self.assertGreater(time.monotonic() - start, 0.6)

    def test_a_silent_port_is_reported(self):
        master, slave = os.openpty()
        tty.setraw(master)
        done = self.run_verb("mdata-get", "a", port=os.ttyname(slave))
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"no answer from the metadata service", done.stderr)
        os.close(slave)
        os.close(master)


class Mock(unittest.TestCase):
    def test_version_1(self):
        session = mock.Session(mock.Store({"k": "a\n.b", "sdc:x": "1"}))
        self.assertEqual(session.answer(""), ["invalid command"])
        self.assertEqual(session.answer("GET"), ["invalid command"])
        self.assertEqual(session.answer("GET k"), ["SUCCESS", "a", "..b", "."])
        self.assertEqual(session.answer("GET q"), ["NOTFOUND"])
        self.assertEqual(session.answer("KEYS"), ["SUCCESS", "k", "."])
        self.assertEqual(session.answer("NEGOTIATE V3"), ["FAILURE"])
        self.assertEqual(session.answer("V2 1 00000000 x"), [])

    def test_an_empty_value_has_no_payload(self):
        session = mock.Session(mock.Store({"k": ""}))
        question = client.frame(b"0000000a", b"GET", base64.b64encode(b"k")).decode()
        self.assertTrue(session.answer(question)[0].endswith("0000000a SUCCESS"))


if __name__ == "__main__":
    unittest.main()
