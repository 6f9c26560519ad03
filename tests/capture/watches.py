"""What is captured of watches: every kind of event, and the operations that set and remove them."""

from scenarios import EPHEMERAL, NO_NODE, finish, session
from wire import Fixture, acl, boolean, buffer, create_body, i32, i64, vector

MARSHALLING, NO_WATCHER = -5, -121
PERSISTENT, PERSISTENT_RECURSIVE = 0, 1
CHILDREN, DATA, ANY, WATCHER_PERSISTENT, WATCHER_RECURSIVE = 1, 2, 3, 4, 5


def strings(*paths):
    return vector([buffer(path) for path in paths])


def set_data(path, data=b"new"):
    return buffer(path) + buffer(data) + i32(-1)


def delete(path):
    return buffer(path) + i32(-1)


def events(out, port):
    with Fixture(out, "event", "Watch events: xid -1, the zxid of the change") as f:
        a, b = session(f, port, "a"), session(f, port, "b")
        f.note("Created (1), seen by the client that makes it, before its reply.")
        a.expect_error(NO_NODE, "exists", buffer("/event") + boolean(True))
        a.ok("create", create_body("/event"))
        f.note("Data changed (3), by another session.")
        a.ok("getData", buffer("/event") + boolean(True))
        b.ok("setData", set_data("/event"))
        a.event()
        f.note("Children changed (4), by a create and by a delete.")
        a.ok("getChildren", buffer("/event") + boolean(True))
        b.ok("create", create_body("/event/child"))
        a.event()
        a.ok("getChildren2", buffer("/event") + boolean(True))
        b.ok("delete", delete("/event/child"))
        a.event()
        f.note("Deleted (2): data and child watches of one connection make one event.")
        a.ok("getData", buffer("/event") + boolean(True))
        a.ok("getChildren", buffer("/event") + boolean(True))
        b.ok("delete", delete("/event"))
        a.event()
        f.note("An ephemeral goes with its session.")
        b.ok("create", create_body("/event-e", flags=EPHEMERAL))
        a.ok("exists", buffer("/event-e") + boolean(True))
        b.ok("closeSession")
        b.expect_closed()
        a.event()
        finish(a)


def add_watch(out, port):
    with Fixture(out, "addWatch", "addWatch (106): replies with an error code in its body") as f:
        a = session(f, port)
        f.note("Persistent: stays; events 1, 2, 3 of the node and 4 for its children.")
        a.ok("addWatch", buffer("/addWatch") + i32(PERSISTENT))
        a.ok("create", create_body("/addWatch"))
        a.ok("setData", set_data("/addWatch"))
        a.ok("setData", set_data("/addWatch"))
        a.ok("create", create_body("/addWatch/a"))
        a.ok("delete", delete("/addWatch/a"))
        a.ok("delete", delete("/addWatch"))
        f.note("Persistent and recursive: of all descendants, never 4.")
        a.ok("addWatch", buffer("/addWatch2") + i32(PERSISTENT_RECURSIVE))
        a.ok("create", create_body("/addWatch2"))
        a.ok("create", create_body("/addWatch2/a"))
        a.ok("create", create_body("/addWatch2/a/b"))
        a.ok("setData", set_data("/addWatch2/a/b"))
        a.ok("delete", delete("/addWatch2/a/b"))
        f.note("An unknown mode.")
        a.expect_error(MARSHALLING, "addWatch", buffer("/addWatch") + i32(7))
        finish(a)


def remove_watches(out, port):
    with Fixture(out, "removeWatches", "removeWatches (18): a header alone") as f:
        a = session(f, port)
        a.setup(("create", create_body("/removeWatches")))
        f.note("Nothing to remove.")
        a.expect_error(NO_WATCHER, "removeWatches", buffer("/removeWatches") + i32(ANY))
        f.note("Each type: children, data, any, persistent, recursive.")
        path = buffer("/removeWatches")
        for name, body, kind in (
                ("getChildren", boolean(True), CHILDREN), ("getData", boolean(True), DATA),
                ("exists", boolean(True), ANY), ("addWatch", i32(PERSISTENT), WATCHER_PERSISTENT),
                ("addWatch", i32(PERSISTENT_RECURSIVE), WATCHER_RECURSIVE)):
            a.ok(name, path + body)
            a.ok("removeWatches", path + i32(kind))
        f.note("A data watch is not a children watch; an unknown type.")
        a.ok("getData", path + boolean(True))
        a.expect_error(NO_WATCHER, "removeWatches", path + i32(CHILDREN))
        a.expect_error(MARSHALLING, "removeWatches", path + i32(9))
        finish(a)


def check_watches(out, port):
    with Fixture(out, "checkWatches", "checkWatches (17): a header alone") as f:
        a = session(f, port)
        a.setup(("create", create_body("/checkWatches")))
        path = buffer("/checkWatches")
        a.expect_error(NO_WATCHER, "checkWatches", path + i32(DATA))
        a.ok("getData", path + boolean(True))
        a.ok("checkWatches", path + i32(DATA))
        a.ok("checkWatches", path + i32(ANY))
        a.expect_error(NO_WATCHER, "checkWatches", path + i32(CHILDREN))
        a.expect_error(NO_WATCHER, "checkWatches", path + i32(WATCHER_PERSISTENT))
        finish(a)


def set_watches(out, port):
    """Each path changes between the zxid that the client has seen and the catch-up."""
    for name in ("setWatches", "setWatches2"):
        with Fixture(out, name, f"{name}: xid -8, a header alone after the events that were missed") as f:
            root = f"/{name}"
            a = session(f, port, "a")
            a.setup(("create", create_body(root)),
                    *[("create", create_body(f"{root}/{child}")) for child in
                      ("same", "changed", "deleted", "parent", "quiet", "gone", "persistent")])
            seen = a.zxid
            a.setup(("setData", set_data(f"{root}/changed")), ("delete", delete(f"{root}/deleted")),
                    ("create", create_body(f"{root}/made")), ("create", create_body(f"{root}/parent/child")),
                    ("delete", delete(f"{root}/gone")))
            extra = strings(f"{root}/persistent") + strings(root) if name == "setWatches2" else b""
            f.note("data: changed, deleted, same; exist: made, none; child: changed, same, gone.")
            a.ok(name, i64(seen) + strings(f"{root}/changed", f"{root}/deleted", f"{root}/same")
                 + strings(f"{root}/made", f"{root}/none")
                 + strings(f"{root}/parent", f"{root}/quiet", f"{root}/gone") + extra)
            f.note("The watches without news are set: an event each.")
            a.ok("setData", set_data(f"{root}/same"))
            a.ok("create", create_body(f"{root}/none"))
            a.ok("create", create_body(f"{root}/quiet/child"))
            f.note("Nothing to set.")
            a.ok(name, i64(a.zxid) + strings() * (5 if name == "setWatches2" else 3))
            finish(a)


def unreadable(out, port):
    with Fixture(out, "event-filtered", "An event is dropped for a connection that may not read the node") as f:
        owner, other = session(f, port, "a"), session(f, port, "b")
        owner.setup(("auth", i32(0) + buffer("digest") + buffer(b"ann:secret")))
        f.note("b watches a path; a makes the node readable to itself alone, then makes it open.")
        other.ok("addWatch", buffer("/filtered") + i32(PERSISTENT))
        owner.ok("create", create_body("/filtered", acls=vector([acl(31, "auth", "")])))
        other.ok("ping")
        owner.ok("setACL", buffer("/filtered") + vector([acl(31, "world", "anyone")]) + i32(-1))
        owner.ok("setData", set_data("/filtered"))
        other.event()
        finish(owner, other)


ALL = [events, add_watch, remove_watches, check_watches, set_watches, unreadable]
