"""A pytest plugin: adds three lines to every zoo.cfg that kazoo's harness writes.

The harness names no address, so that the server under test would listen on every interface, and
its AdminServer with it. A test has no business there. Both the real ZooKeeper and Vivarium get the
same file, so the comparison between them stands.
"""

from kazoo.testing.common import ZookeeperCluster

LINES = (
    "clientPortAddress=127.0.0.1",
    "secureClientPortAddress=127.0.0.1",
    "admin.enableServer=false",
)

_init = ZookeeperCluster.__init__


def _init_on_loopback(self, *args, configuration_entries=(), **kwargs):
    _init(self, *args, configuration_entries=[*configuration_entries, *LINES], **kwargs)


ZookeeperCluster.__init__ = _init_on_loopback
