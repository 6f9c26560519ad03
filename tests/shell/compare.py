"""Compares `vivarium shell` with the real zkCli, command by command.

Both read the same commands from a pipe, each from a fresh Vivarium. A marker command (`version`, whose
answer is one known line) stands behind every command, so that the output of each can be told apart.
Events are printed by a thread of zkCli's own, anywhere near their cause: they are compared apart.
Times, zxids and session ids differ between any two servers and are masked; what differs on purpose is
in DIFFERENCES, with the reason.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time

# Command -> why its output is not the same; it must then differ.
DIFFERENCES = {
    "delete /a": "ours adds which verb deletes a tree",
    "setAcl /a bogus": "ours says which form is expected, zkCli adds a null",
    "whoami": "ours sorts, zkCli prints the server's order",
    "ls a": "ours says what it got",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(binary, directory):
    address = f"127.0.0.1:{free_port()}"
    arguments = [binary, "serve", "--data-dir", directory, "--listen", address]
    # VIVARIUM_TEST_CACHE and the like are no keys of a configuration.
    env = {name: value for name, value in os.environ.items() if not name.startswith("VIVARIUM_")}
    server = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env=env)
    host, port = address.split(":")
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return server, address
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server does not answer at {address}")
            time.sleep(0.05)


def outputs(command, commands):
    """What each command printed, both streams together, and the events of all, in order."""
    lines = "".join(f"{line}\nversion\n" for line in commands)
    # Before the first marker stands what the program says of connecting.
    done = subprocess.run(
        command,
        input="version\n" + lines,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    parts = re.split(r"(?m)^(?:ZooKeeper|Vivarium) CLI version: .*$", done.stdout)[1:-1]
    if len(parts) != len(commands):
        sys.exit(f"expected {len(commands)} outputs, got {len(parts)}:\n{done.stdout}")
    events = re.findall(r"^WatchedEvent .* type:(Node\w+) path:(\S+)", done.stdout, re.M)
    return [masked(part) for part in parts], events


def masked(text):
    text = re.sub(r"0x[0-9a-f]+", "0xN", text)
    text = re.sub(r"(?m)^(ctime|mtime) = .*$", r"\1", text)
    # What the shells say by themselves comes when it comes.
    event = re.compile(r"WATCHER::|WatchedEvent |Connected to ")
    return "\n".join(line for line in text.splitlines() if line.strip() and not event.match(line))


def main():
    binary, class_path, file = sys.argv[1:]
    with open(file, encoding="utf-8") as lines:
        commands = [line.rstrip("\n") for line in lines if line.strip() and line[0] != "#"]
    results = []
    main_class = "org.apache.zookeeper.ZooKeeperMain"
    for shell in (["java", "-cp", class_path, main_class, "-server"], [binary, "shell", "--server"]):
        with tempfile.TemporaryDirectory() as directory:
            server, address = serve(binary, directory)
            try:
                results.append(outputs(shell + [address], commands))
            finally:
                server.kill()
                server.wait()
    failed = 0
    (real, real_events), (ours, our_events) = results
    pairs = [*zip(commands, real, ours), ("(events)", real_events, our_events)]
    for command, real, ours in pairs:
        if (real == ours) == (command in DIFFERENCES):
            failed += 1
            print(f"--- {command}\nzkCli:\n{real}\nvivarium shell:\n{ours}")
    print(f"{len(pairs) - failed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
