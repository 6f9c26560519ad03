"""Just enough of ZooKeeper's wire format to write requests by hand and record what comes back.

Nothing here decodes more of an answer than its header: the fixtures must not depend on a decoder's
idea of the format.
"""

import contextlib
import pathlib
import socket
import struct
import time

OPCODES = {
    "create": 1, "delete": 2, "exists": 3, "getData": 4, "setData": 5, "getACL": 6, "setACL": 7,
    "getChildren": 8, "sync": 9, "ping": 11, "getChildren2": 12, "check": 13, "multi": 14,
    "create2": 15, "reconfig": 16, "checkWatches": 17, "removeWatches": 18, "createContainer": 19,
    "deleteContainer": 20, "createTTL": 21, "multiRead": 22, "auth": 100, "setWatches": 101,
    "sasl": 102, "getEphemerals": 103, "getAllChildrenNumber": 104, "setWatches2": 105,
    "addWatch": 106, "whoAmI": 107, "closeSession": -11,
}

# The connection's own xids; all others count up from 1.
XIDS = {"ping": -2, "auth": -4, "setWatches": -8, "setWatches2": -8}

REPLY_SECONDS_MAX = 15


def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def boolean(value):
    return b"\x01" if value else b"\x00"


def buffer(value):
    """A jute buffer or string; None is the null one."""
    if value is None:
        return i32(-1)
    if isinstance(value, str):
        value = value.encode()
    return i32(len(value)) + value


def vector(items):
    """A vector of items that are already encoded; None is the null one."""
    return i32(-1) if items is None else i32(len(items)) + b"".join(items)


def acl(perms, scheme, identity):
    return i32(perms) + buffer(scheme) + buffer(identity)


OPEN = vector([acl(31, "world", "anyone")])


def create_body(path, data=b"x", acls=OPEN, flags=0):
    return buffer(path) + buffer(data) + acls + i32(flags)


def multi_body(*operations):
    """operations: (name, body)."""
    body = b"".join(i32(OPCODES[name]) + boolean(False) + i32(-1) + sub for name, sub in operations)
    return body + i32(-1) + boolean(True) + i32(-1)


class Fixture:
    """One file. Written when the block ends without an error."""

    def __init__(self, directory, name, about):
        self.path = pathlib.Path(directory) / f"{name}.txt"
        self.lines = [f"# {line}" for line in about.strip().splitlines()]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.path.write_text("\n".join(self.lines) + "\n")

    def note(self, text):
        self.lines += ["", f"# {text}"]

    def frame(self, direction, connection, name, payload):
        self.lines.append(f"{direction} {connection} {name} {payload.hex()}")

    def closed(self, connection):
        self.lines.append(f"! {connection} closed")


class Connection:
    """A client connection whose frames are recorded in a fixture, unless `quiet` is set."""

    def __init__(self, fixture, port, name="a"):
        self.fixture = fixture
        self.name = name
        self.quiet = False
        self.xid = 0
        self.pending = {}
        self.session = (0, bytes(16))
        self.zxid = 0
        self.socket = socket.create_connection(("127.0.0.1", port), REPLY_SECONDS_MAX)

    def connect(self, timeout_ms=10000, session=(0, bytes(16)), read_only=False, zxid=0, version=0):
        """read_only None leaves the byte out, as clients before 3.4 do. Returns the session."""
        payload = i32(version) + i64(zxid) + i32(timeout_ms) + i64(session[0]) + buffer(session[1])
        if read_only is not None:
            payload += boolean(read_only)
        self._send("connect", payload)
        reply = self._receive()
        self._record("<", "connect", reply)
        self.session = (struct.unpack_from(">q", reply, 8)[0], reply[20:36])
        return self.session

    def ask(self, name, body=b"", opcode=None):
        """Sends one request, records everything up to its reply, and returns the reply."""
        self.send(name, body, opcode)
        return self.reply()

    def send(self, name, body=b"", opcode=None):
        xid = XIDS.get(name)
        if xid is None:
            self.xid += 1
            xid = self.xid
        self.pending[xid] = name
        self._send(name, i32(xid) + i32(OPCODES[name] if opcode is None else opcode) + body)

    def reply(self):
        """Records frames until one that is not an event, and returns that one."""
        while True:
            payload = self._receive()
            xid, zxid = struct.unpack_from(">iq", payload)
            if zxid > 0:
                self.zxid = zxid
            if xid == -1:
                self._record("<", "event", payload)
                continue
            if xid not in self.pending:
                raise AssertionError(f"reply to xid {xid}, which was not asked: {payload.hex()}")
            self._record("<", self.pending.pop(xid), payload)
            return payload

    def event(self):
        payload = self._receive()
        if payload[:4] != i32(-1):
            raise AssertionError(f"expected an event, got {payload.hex()}")
        self._record("<", "event", payload)

    def expect_error(self, code, name, body=b"", opcode=None):
        """As `ask`; the fixture must show this error, or the scenario is not what its note says."""
        payload = self.ask(name, body, opcode)
        got = struct.unpack_from(">i", payload, 12)[0]
        if got != code:
            raise AssertionError(f"{name}: expected error {code}, got {got}: {payload.hex()}")

    def ok(self, name, body=b""):
        self.expect_error(0, name, body)

    def setup(self, *requests):
        """Requests that only prepare: sent, checked, not recorded."""
        self.quiet = True
        for name, body in requests:
            self.ok(name, body)
        self.quiet = False

    def expect_closed(self):
        """The server must close the connection without another frame."""
        try:
            data = self.socket.recv(1)
        except ConnectionResetError:
            data = b""
        if data:
            raise AssertionError("the server sent another frame where it should close")
        if self.fixture and not self.quiet:
            self.fixture.closed(self.name)
        self.socket.close()

    def close(self):
        self.socket.close()

    def _send(self, name, payload):
        self._record(">", name, payload)
        self.socket.sendall(i32(len(payload)) + payload)

    def _receive(self):
        return self._exactly(struct.unpack(">i", self._exactly(4))[0])

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise AssertionError(f"the server closed the connection; {len(data)} of {count} bytes came")
            data += part
        return data

    def _record(self, direction, name, payload):
        if self.fixture and not self.quiet:
            self.fixture.frame(direction, self.name, name, payload)


def wait_for_port(port, process, seconds_max=60):
    """Waits until the server says that it serves, so that captures never start too early."""
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"capture: the ZooKeeper on port {port} ended with code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as probe:
            probe.sendall(b"srvr")
            if b"Mode:" in b"".join(iter(lambda: probe.recv(4096), b"")):
                return
        time.sleep(0.2)
    raise SystemExit(f"capture: no ZooKeeper answered on port {port} within {seconds_max} s")
