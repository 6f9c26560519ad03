"""Records how a real ZooKeeper 3.9.5 answers every operation, one fixture file per operation.

Each scenario says which error or close it expects and fails if the server does otherwise, so that
a fixture always shows what its comments say.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import scenarios
import watches
import wire

SUPER_DIGEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="  # the password is "test"

JAAS = """Server {
    org.apache.zookeeper.server.auth.DigestLoginModule required
    user_super="super_secret"
    user_jaasuser="jaas_password";
};
"""

README = """Frames between a client and a real ZooKeeper 3.9.5, one file per operation.

Written by tests/capture/run. Lines:

    # text                          a comment: what the next frames show
    > CONNECTION NAME HEX           a frame from the client
    < CONNECTION NAME HEX           a frame from the server
    ! CONNECTION closed             the server closed the connection, with no further frame

HEX is the payload without its length prefix. CONNECTION is a letter, one per connection of the
file. NAME is the operation as ZooKeeper calls it; `connect` frames have no header, an `event` is a
watch event, a `reply` to an operation that does not exist is named `unknown`. A frame from the
server bears the name of the request that it answers. Frames of one connection are in the order in
which they travelled; connections are made and prepared (nodes created, and so on) without a record
where that is not what the file shows. Session ids, passwords, zxids and times are of that one run.

The server ran with zookeeper.extendedTypesEnabled, enforceQuota, a superDigest and a JAAS file for
DIGEST-MD5; the comments say where another one was used.
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def zookeeper(properties=(), lines=()):
    """A real ZooKeeper on a free port of 127.0.0.1; yields the port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="capture-") as directory:
        root = pathlib.Path(directory)
        (root / "jaas.conf").write_text(JAAS)
        config = [
            "tickTime=500", f"dataDir={root}/data", f"clientPort={port}", "clientPortAddress=127.0.0.1",
            "admin.enableServer=false", "4lw.commands.whitelist=*", "maxSessionTimeout=40000",
            "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider", *lines]
        (root / "zoo.cfg").write_text("\n".join(config) + "\n")
        command = [
            "java", "-Xmx256m", "-cp", os.environ["REAL_ZOOKEEPER_CLASSPATH"],
            f"-Djava.security.auth.login.config={root}/jaas.conf",
            f"-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER_DIGEST}",
            *[f"-D{key}={value}" for key, value in properties],
            "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(root / "zoo.cfg")]
        log_path = root / "log"
        with open(log_path, "wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wire.wait_for_port(port, process)
            yield port
        except BaseException:
            sys.stderr.write(log_path.read_text(errors="replace")[-2000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with zookeeper([("zookeeper.extendedTypesEnabled", "true"), ("zookeeper.enforceQuota", "true")]) as port:
        for scenario in [*scenarios.ALL, *watches.ALL]:
            scenario(out, port)
    with zookeeper() as disabled, zookeeper(lines=["reconfigEnabled=true"]) as enabled:
        scenarios.reconfig(out, disabled, enabled)
        scenarios.ttl_disabled(out, disabled)
    with zookeeper([("zookeeper.enforce.auth.enabled", "true"), ("zookeeper.enforce.auth.schemes", "digest")]) as port:
        scenarios.enforced_auth(out, port)
    (out / "README.md").write_text(README)
    print(f"capture: {len(list(out.glob('*.txt')))} files in {out}")


if __name__ == "__main__":
    main()
