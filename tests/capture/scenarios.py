"""What is captured of each operation, except for watches."""

import struct

from puresasl.client import SASLClient

from wire import (OPEN, Connection, Fixture, acl, boolean, buffer, create_body, i32, i64, multi_body,
                  vector)

READ, ADMIN = 1, 16

# Error codes by ZooKeeper's names.
MARSHALLING, UNIMPLEMENTED, BAD_ARGUMENTS = -5, -6, -8
NO_NODE, NO_AUTH, BAD_VERSION, NO_CHILDREN_FOR_EPHEMERALS = -101, -102, -103, -108
NODE_EXISTS, NOT_EMPTY, INVALID_ACL, AUTH_FAILED = -110, -111, -114, -115
RECONFIG_DISABLED, CLOSED_REQUIRES_AUTH, QUOTA_EXCEEDED = -123, -124, -125

EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL, CONTAINER, TTL, SEQUENTIAL_TTL = 1, 2, 3, 4, 5, 6


def session(fixture, port, name="a"):
    """A connection with a session, its connect not recorded."""
    connection = Connection(fixture, port, name)
    connection.quiet = True
    connection.connect()
    connection.quiet = False
    return connection


def finish(*connections):
    for connection in connections:
        connection.quiet = True
        connection.ok("closeSession")
        connection.close()


def connect(out, port):
    with Fixture(out, "connect", "connect: the first frame, which has no header") as f:
        f.note("A new session, with the read-only byte.")
        a = Connection(f, port, "a")
        first = a.connect()
        f.note("The session is attached again on another connection; the first one is closed.")
        b = Connection(f, port, "b")
        b.connect(session=first, zxid=1)
        a.expect_closed()
        f.note("A wrong password: timeout and session are 0, the password is zeros, then a close.")
        c = Connection(f, port, "c")
        c.connect(session=(first[0], b"wrong password!!"))
        c.expect_closed()
        f.note("The attempt has closed the session's connection all the same; the session lives on.")
        b.expect_closed()
        l = Connection(f, port, "l")
        l.connect(session=first)
        finish(l)
        f.note("A session that is no more.")
        d = Connection(f, port, "d")
        d.connect(session=first)
        d.expect_closed()
        f.note("Without the read-only byte the reply has none either.")
        e = Connection(f, port, "e")
        old = e.connect(read_only=None)
        f.note("A failed attach without the read-only byte.")
        g = Connection(f, port, "g")
        g.connect(session=(old[0], bytes(16)), read_only=None)
        g.expect_closed()
        e.expect_closed()
        f.note("A client that accepts a read-only server; this one is not read-only.")
        h = Connection(f, port, "h")
        h.connect(read_only=True)
        f.note("Timeouts are clamped: asked for 1 ms, then for an hour.")
        i = Connection(f, port, "i")
        i.connect(timeout_ms=1)
        j = Connection(f, port, "j")
        j.connect(timeout_ms=3600000)
        finish(h, i, j)
        f.note("A client that has seen a later zxid than the server is refused without a reply.")
        k = Connection(f, port, "k")
        k._send("connect", i32(0) + i64(1 << 40) + i32(10000) + i64(0) + buffer(bytes(16)) + boolean(False))
        k.expect_closed()


def create(out, port):
    with Fixture(out, "create", "create (1): replies with the path") as f:
        a = session(f, port)
        f.note("Persistent, with data, empty data, null data.")
        a.ok("create", create_body("/create"))
        a.ok("create", create_body("/create/empty", b""))
        a.ok("create", create_body("/create/null", None))
        f.note("Ephemeral, sequential, ephemeral sequential.")
        a.ok("create", create_body("/create/e", flags=EPHEMERAL))
        a.ok("create", create_body("/create/s-", flags=SEQUENTIAL))
        a.ok("create", create_body("/create/es-", flags=EPHEMERAL_SEQUENTIAL))
        f.note("Several ACL entries; a path and data outside ASCII.")
        several = vector([acl(31, "world", "anyone"), acl(READ, "ip", "10.0.0.0/8"),
                          acl(READ | ADMIN, "digest", "bob:2jmj7l5rSw0yVb/vlWAYkK/YBwk=")])
        a.ok("create", create_body("/create/acl", acls=several))
        a.ok("create", create_body("/create/ünïcode-節点", "wörld".encode()))
        f.note("The container flag here makes a plain persistent node.")
        a.ok("create", create_body("/create/container", flags=CONTAINER))
        f.note("Errors: exists, no parent, under an ephemeral, bad paths, bad flag.")
        a.expect_error(NODE_EXISTS, "create", create_body("/create"))
        a.expect_error(NO_NODE, "create", create_body("/create/none/child"))
        a.expect_error(NO_CHILDREN_FOR_EPHEMERALS, "create", create_body("/create/e/child"))
        a.expect_error(BAD_ARGUMENTS, "create", create_body("/create/.."))
        a.expect_error(NO_NODE, "create", create_body("/create//child"))
        a.expect_error(BAD_ARGUMENTS, "create", create_body("/create/x", flags=9))
        f.note("ACL errors: empty, null, unknown scheme, `auth` without any, bad ip.")
        for bad in (vector([]), vector(None), vector([acl(31, "nope", "x")]), vector([acl(31, "auth", "")]),
                    vector([acl(31, "ip", "not an address")])):
            a.expect_error(INVALID_ACL, "create", create_body("/create/x", acls=bad))
        f.note("No CREATE right on the parent.")
        a.ok("create", create_body("/create/closed", acls=vector([acl(READ, "world", "anyone")])))
        a.expect_error(NO_AUTH, "create", create_body("/create/closed/x"))
        finish(a)


def create2(out, port):
    with Fixture(out, "create2", "create2 (15): replies with path and stat") as f:
        a = session(f, port)
        f.note("Persistent, null data, ephemeral, sequential.")
        a.ok("create2", create_body("/create2"))
        a.ok("create2", create_body("/create2/null", None))
        a.ok("create2", create_body("/create2/e", flags=EPHEMERAL))
        a.ok("create2", create_body("/create2/s-", flags=SEQUENTIAL))
        f.note("Exists.")
        a.expect_error(NODE_EXISTS, "create2", create_body("/create2"))
        finish(a)


def create_container(out, port):
    with Fixture(out, "createContainer", "createContainer (19): a create2 with flag 4") as f:
        a = session(f, port)
        f.note("Made, exists; its stat has no ephemeral owner.")
        a.ok("createContainer", create_body("/container", flags=CONTAINER))
        a.expect_error(NODE_EXISTS, "createContainer", create_body("/container", flags=CONTAINER))
        a.ok("exists", buffer("/container") + boolean(False))
        finish(a)


def ttl_body(path, flags, ttl_ms, data=b"x"):
    return create_body(path, data, flags=flags) + i64(ttl_ms)


def create_ttl(out, port):
    with Fixture(out, "createTTL", "createTTL (21): a create2 with a time to live in ms") as f:
        a = session(f, port)
        f.note("Made, sequential, with the largest time to live.")
        a.ok("createTTL", ttl_body("/ttl", TTL, 3600000))
        a.ok("createTTL", ttl_body("/ttl-", SEQUENTIAL_TTL, 3600000))
        a.ok("createTTL", ttl_body("/ttl-max", TTL, (1 << 40) - 1))
        f.note("Errors: exists, 0, negative, too large, a flag that has no time to live.")
        a.expect_error(NODE_EXISTS, "createTTL", ttl_body("/ttl", TTL, 1000))
        for ttl_ms in (0, -1, 1 << 40):
            a.expect_error(BAD_ARGUMENTS, "createTTL", ttl_body("/ttl-x", TTL, ttl_ms))
        a.expect_error(BAD_ARGUMENTS, "createTTL", ttl_body("/ttl-x", 0, 1000))
        finish(a)


def ttl_disabled(out, port):
    with Fixture(out, "createTTL-disabled", "createTTL on a server without zookeeper.extendedTypesEnabled") as f:
        a = session(f, port)
        a.expect_error(UNIMPLEMENTED, "createTTL", ttl_body("/ttl", TTL, 1000))
        finish(a)


def delete(out, port):
    with Fixture(out, "delete", "delete (2): a header alone") as f:
        a = session(f, port)
        a.setup(("create", create_body("/delete")), ("create", create_body("/delete/a")),
                ("create", create_body("/delete/b")))
        f.note("With the right version, with any version.")
        a.ok("delete", buffer("/delete/a") + i32(0))
        a.ok("delete", buffer("/delete/b") + i32(-1))
        f.note("No node, no parent.")
        a.expect_error(NO_NODE, "delete", buffer("/delete/a") + i32(-1))
        a.expect_error(NO_NODE, "delete", buffer("/delete/none/a") + i32(-1))
        f.note("Wrong version, not empty, the root, a system node.")
        a.setup(("create", create_body("/delete/a")))
        a.expect_error(BAD_VERSION, "delete", buffer("/delete/a") + i32(7))
        a.expect_error(NOT_EMPTY, "delete", buffer("/delete") + i32(-1))
        a.expect_error(BAD_ARGUMENTS, "delete", buffer("/") + i32(-1))
        a.expect_error(BAD_ARGUMENTS, "delete", buffer("/zookeeper") + i32(-1))
        finish(a)


def exists(out, port):
    with Fixture(out, "exists", "exists (3): replies with the stat") as f:
        a = session(f, port)
        a.setup(("create", create_body("/exists")), ("create", create_body("/exists/e", flags=EPHEMERAL)))
        f.note("A node, an ephemeral with its owner, the root, whose cversion counts no create of /zookeeper.")
        a.ok("exists", buffer("/exists") + boolean(False))
        a.ok("exists", buffer("/exists/e") + boolean(False))
        a.ok("exists", buffer("/") + boolean(False))
        f.note("No node; with a watch, which is set all the same.")
        a.expect_error(NO_NODE, "exists", buffer("/exists/none") + boolean(False))
        a.expect_error(NO_NODE, "exists", buffer("/exists/none") + boolean(True))
        finish(a)


def get_data(out, port):
    with Fixture(out, "getData", "getData (4): replies with data and stat") as f:
        a = session(f, port)
        a.setup(("create", create_body("/getData", b"some data")), ("create", create_body("/getData/empty", b"")),
                ("create", create_body("/getData/null", None)))
        f.note("Data, empty data, null data.")
        for path in ("/getData", "/getData/empty", "/getData/null"):
            a.ok("getData", buffer(path) + boolean(False))
        f.note("With a watch.")
        a.ok("getData", buffer("/getData") + boolean(True))
        f.note("No node; a path that can not exist.")
        a.expect_error(NO_NODE, "getData", buffer("/getData/none") + boolean(False))
        a.expect_error(NO_NODE, "getData", buffer("/getData/../x") + boolean(False))
        f.note("No READ right.")
        a.setup(("create", create_body("/getData/closed", acls=vector([acl(2, "world", "anyone")]))))
        a.expect_error(NO_AUTH, "getData", buffer("/getData/closed") + boolean(False))
        f.note("The configuration node, empty on a single server.")
        a.ok("getData", buffer("/zookeeper/config") + boolean(False))
        finish(a)


def set_data(out, port):
    with Fixture(out, "setData", "setData (5): replies with the stat") as f:
        a = session(f, port)
        a.setup(("create", create_body("/setData")))
        f.note("Right version, any version, empty, null.")
        a.ok("setData", buffer("/setData") + buffer(b"one") + i32(0))
        a.ok("setData", buffer("/setData") + buffer(b"two") + i32(-1))
        a.ok("setData", buffer("/setData") + buffer(b"") + i32(-1))
        a.ok("setData", buffer("/setData") + buffer(None) + i32(-1))
        f.note("Wrong version, no node, bad path.")
        a.expect_error(BAD_VERSION, "setData", buffer("/setData") + buffer(b"x") + i32(99))
        a.expect_error(NO_NODE, "setData", buffer("/setData/none") + buffer(b"x") + i32(-1))
        a.expect_error(BAD_ARGUMENTS, "setData", buffer("setData") + buffer(b"x") + i32(-1))
        f.note("A hard quota of 5 bytes is exceeded.")
        a.setup(("create", create_body("/zookeeper/quota/setData", b"")),
                ("create", create_body("/zookeeper/quota/setData/zookeeper_limits",
                                       b"count=-1,bytes=-1=;byteHardLimit=5;countHardLimit=-1")),
                ("create", create_body("/zookeeper/quota/setData/zookeeper_stats", b"count=1,bytes=0")))
        a.expect_error(QUOTA_EXCEEDED, "setData", buffer("/setData") + buffer(b"too long") + i32(-1))
        finish(a)


def acls(out, port):
    with Fixture(out, "getACL", "getACL (6): replies with the list and the stat") as f:
        a, b = session(f, port, "a"), session(f, port, "b")
        a.setup(("auth", i32(0) + buffer("digest") + buffer(b"ann:secret")), ("create", create_body("/getACL")))
        f.note("Open to anyone.")
        a.ok("getACL", buffer("/getACL") + b"")
        f.note("The owner, who has ADMIN, sees the digest; another reader sees `x` in its place.")
        mixed = vector([acl(31, "auth", ""), acl(READ, "world", "anyone")])
        a.setup(("create", create_body("/getACL/masked", acls=mixed)))
        a.ok("getACL", buffer("/getACL/masked"))
        b.ok("getACL", buffer("/getACL/masked"))
        f.note("Neither READ nor ADMIN; no node; the configuration node's aversion is -1.")
        a.setup(("create", create_body("/getACL/closed", acls=vector([acl(31, "auth", "")]))))
        b.expect_error(NO_AUTH, "getACL", buffer("/getACL/closed"))
        b.expect_error(NO_NODE, "getACL", buffer("/getACL/none"))
        b.ok("getACL", buffer("/zookeeper/config"))
        finish(a, b)
    with Fixture(out, "setACL", "setACL (7): replies with the stat") as f:
        a = session(f, port)
        a.setup(("create", create_body("/setACL")))
        f.note("Against the ACL version; any version; a repeated entry is dropped.")
        a.ok("setACL", buffer("/setACL") + OPEN + i32(0))
        a.ok("setACL", buffer("/setACL") + vector([acl(31, "world", "anyone")] * 2) + i32(-1))
        a.ok("getACL", buffer("/setACL"))
        f.note("Wrong version, no node, empty list, unknown scheme.")
        a.expect_error(BAD_VERSION, "setACL", buffer("/setACL") + OPEN + i32(99))
        a.expect_error(NO_NODE, "setACL", buffer("/setACL/none") + OPEN + i32(-1))
        a.expect_error(INVALID_ACL, "setACL", buffer("/setACL") + vector([]) + i32(-1))
        a.expect_error(INVALID_ACL, "setACL", buffer("/setACL") + vector([acl(1, "nope", "x")]) + i32(-1))
        f.note("Without ADMIN.")
        a.ok("setACL", buffer("/setACL") + vector([acl(READ, "world", "anyone")]) + i32(-1))
        a.expect_error(NO_AUTH, "setACL", buffer("/setACL") + OPEN + i32(-1))
        finish(a)


def children(out, port):
    for name, about in (("getChildren", "getChildren (8): replies with names"),
                        ("getChildren2", "getChildren2 (12): replies with names and the stat")):
        with Fixture(out, name, about) as f:
            a = session(f, port)
            a.setup(("create", create_body(f"/{name}")))
            f.note("None, some, with a watch.")
            a.ok(name, buffer(f"/{name}") + boolean(False))
            a.setup(*[("create", create_body(f"/{name}/{child}")) for child in ("a", "b", "ü")])
            a.ok(name, buffer(f"/{name}") + boolean(False))
            a.ok(name, buffer(f"/{name}") + boolean(True))
            f.note("No node.")
            a.expect_error(NO_NODE, name, buffer(f"/{name}/none") + boolean(False))
            finish(a)
    with Fixture(out, "getAllChildrenNumber", "getAllChildrenNumber (104): replies with a count of descendants") as f:
        a = session(f, port)
        a.setup(("create", create_body("/count")), ("create", create_body("/count/a")),
                ("create", create_body("/count/a/b")))
        a.ok("getAllChildrenNumber", buffer("/count"))
        a.ok("getAllChildrenNumber", buffer("/count/a/b"))
        a.expect_error(NO_NODE, "getAllChildrenNumber", buffer("/count/none"))
        finish(a)
    with Fixture(out, "getEphemerals", "getEphemerals (103): replies with the session's own ephemerals under a path") as f:
        a = session(f, port)
        a.ok("getEphemerals", buffer("/"))
        a.setup(("create", create_body("/own", flags=EPHEMERAL)), ("create", create_body("/own2", flags=EPHEMERAL)))
        a.ok("getEphemerals", buffer("/"))
        a.ok("getEphemerals", buffer("/own2"))
        a.ok("getEphemerals", buffer("/none"))
        finish(a)


def small(out, port):
    with Fixture(out, "sync", "sync (9): replies with the path") as f:
        a = session(f, port)
        a.ok("sync", buffer("/"))
        f.note("The node need not exist.")
        a.ok("sync", buffer("/none"))
        finish(a)
    with Fixture(out, "ping", "ping (11): xid -2, a header alone") as f:
        a = session(f, port)
        a.ok("ping")
        finish(a)
    with Fixture(out, "closeSession", "closeSession (-11): a header alone, then the server closes") as f:
        a = session(f, port)
        a.ok("closeSession")
        a.expect_closed()
    with Fixture(out, "whoAmI", "whoAmI (107): replies with the connection's identities") as f:
        a = session(f, port)
        a.ok("whoAmI")
        a.setup(("auth", i32(0) + buffer("digest") + buffer(b"ann:secret")))
        a.ok("whoAmI")
        finish(a)
    with Fixture(out, "check", "check (13) outside a multi: refused, then a close") as f:
        a = session(f, port)
        a.expect_error(UNIMPLEMENTED, "check", buffer("/") + i32(-1))
        a.expect_closed()
    with Fixture(out, "deleteContainer", "deleteContainer (20) from a client") as f:
        a = session(f, port)
        a.setup(("createContainer", create_body("/deleteContainer", flags=CONTAINER)))
        f.note("Never had a child: no matter, it is deleted.")
        a.ask("deleteContainer", buffer("/deleteContainer"))
        f.note("Not a container, or none.")
        a.ask("deleteContainer", buffer("/deleteContainer-none"))
        finish(a)
    with Fixture(out, "unknown", "an operation that does not exist: refused with zxid -1, then a close") as f:
        a = session(f, port)
        f.lines.append("# The opcode is 999.")
        a.expect_error(UNIMPLEMENTED, "unknown", b"", opcode=999)
        a.expect_closed()


def auth(out, port):
    with Fixture(out, "auth", "auth (100): xid -4, a header alone") as f:
        a = session(f, port)
        f.note("digest.")
        a.ok("auth", i32(0) + buffer("digest") + buffer(b"ann:secret"))
        f.note("The operator, by superDigest.")
        a.ok("auth", i32(0) + buffer("digest") + buffer(b"super:test"))
        finish(a)
        f.note("An unknown scheme: refused, then a close.")
        b = session(f, port, "b")
        b.expect_error(AUTH_FAILED, "auth", i32(0) + buffer("nope") + buffer(b"x"))
        b.expect_closed()


def sasl_client(password):
    return SASLClient("zk-sasl-md5", "zookeeper", mechanism="DIGEST-MD5", username="jaasuser", password=password)


def token(reply):
    length = struct.unpack_from(">i", reply, 16)[0]
    return reply[20:20 + length] if length >= 0 else None


def sasl(out, port):
    with Fixture(out, "sasl", "sasl (102): DIGEST-MD5, user jaasuser, password jaas_password") as f:
        f.note("The first token is empty and brings the challenge; the second brings rspauth.")
        a = session(f, port, "a")
        client = sasl_client("jaas_password")
        client.process()
        challenge = a.ask("sasl", buffer(b""))
        answer = client.process(token(challenge))
        proof = a.ask("sasl", buffer(answer))
        client.process(token(proof))
        if not client.complete:
            raise AssertionError("sasl: the server's rspauth does not prove that it knows the password")
        a.ok("whoAmI")
        finish(a)
        f.note("A wrong password: an error with a null token, then a close.")
        b = session(f, port, "b")
        client = sasl_client("wrong")
        client.process()
        challenge = b.ask("sasl", buffer(b""))
        b.expect_error(AUTH_FAILED, "sasl", buffer(client.process(token(challenge))))
        b.expect_closed()


def multi(out, port):
    with Fixture(out, "multi", "multi (14): all or nothing; the header's error is 0 even when it fails") as f:
        a = session(f, port)
        f.note("Each kind of operation, all succeed.")
        a.ok("multi", multi_body(
            ("create", create_body("/multi")),
            ("create2", create_body("/multi/a", flags=SEQUENTIAL)),
            ("createContainer", create_body("/multi/c", flags=CONTAINER)),
            ("createTTL", ttl_body("/multi/t", TTL, 3600000)),
            ("setData", buffer("/multi") + buffer(b"y") + i32(0)),
            ("check", buffer("/multi") + i32(1)),
            ("delete", buffer("/multi/c") + i32(-1))))
        f.note("The second of three fails: 0 before it, its code, -2 after it.")
        a.ok("multi", multi_body(
            ("create", create_body("/multi/x")),
            ("delete", buffer("/multi/none") + i32(-1)),
            ("create", create_body("/multi/y"))))
        f.note("A failed check alone; a create that exists.")
        a.ok("multi", multi_body(("check", buffer("/multi") + i32(99))))
        a.ok("multi", multi_body(("create", create_body("/multi"))))
        f.note("Without any operation.")
        a.ok("multi", multi_body())
        f.note("A read inside a multi: the whole request is refused.")
        a.ask("multi", multi_body(("create", create_body("/multi/z")), ("getData", buffer("/multi") + boolean(False))))
        finish_or_closed(a)


def multi_read(out, port):
    with Fixture(out, "multiRead", "multiRead (22): each operation has its own result") as f:
        a = session(f, port)
        a.setup(("create", create_body("/multiRead", b"data")), ("create", create_body("/multiRead/a", None)))
        f.note("Data, children, null data.")
        a.ok("multiRead", multi_body(
            ("getData", buffer("/multiRead") + boolean(False)),
            ("getChildren", buffer("/multiRead") + boolean(False)),
            ("getData", buffer("/multiRead/a") + boolean(False))))
        f.note("Errors stand in the place of their operation; the others are answered.")
        a.setup(("create", create_body("/multiRead/closed", acls=vector([acl(2, "world", "anyone")]))))
        a.ok("multiRead", multi_body(
            ("getData", buffer("/multiRead/none") + boolean(False)),
            ("getData", buffer("/multiRead") + boolean(False)),
            ("getChildren", buffer("/multiRead/closed") + boolean(False))))
        f.note("Without any operation.")
        a.ok("multiRead", multi_body())
        finish(a)


def finish_or_closed(connection):
    """For where the server may have closed already."""
    connection.quiet = True
    connection.close()


def reconfig(out, disabled, enabled):
    body = buffer("server.2=127.0.0.1:2888:3888;2181") + buffer(None) + buffer(None) + i64(-1)
    with Fixture(out, "reconfig", "reconfig (16) on a single server") as f:
        f.note("reconfigEnabled is false.")
        a = session(f, disabled, "a")
        a.expect_error(RECONFIG_DISABLED, "reconfig", body)
        finish(a)
        f.note("reconfigEnabled is true, but a single server has no ensemble to change.")
        b = session(f, enabled, "b")
        b.expect_error(UNIMPLEMENTED, "reconfig", body)
        f.note("The same for a full list of members.")
        b.expect_error(UNIMPLEMENTED, "reconfig", buffer(None) + buffer(None) + buffer("server.1=127.0.0.1:2888:3888;2181") + i64(0x100000000))
        finish(b)


def enforced_auth(out, port):
    with Fixture(out, "auth-enforced", "A server with enforce.auth.enabled and the scheme digest") as f:
        f.note("A request before any auth: refused, then a close.")
        a = session(f, port, "a")
        a.expect_error(CLOSED_REQUIRES_AUTH, "create", create_body("/x"))
        a.expect_closed()
        f.note("After auth it is served.")
        b = session(f, port, "b")
        b.ok("auth", i32(0) + buffer("digest") + buffer(b"ann:secret"))
        b.ok("create", create_body("/x"))
        finish(b)


ALL = [exists, connect, create, create2, create_container, create_ttl, delete, get_data, set_data, acls,
       children, small, auth, sasl, multi, multi_read]
