"""Runs kazoo's own suite against one kind of server and compares by test name with a list.

`expected-1.txt` and `expected-3.txt` hold the names of the tests that a real ZooKeeper 3.9.5 passes
with one and with three servers; `--java-real --record` writes them. A test of the list that did not
pass is run once more on its own, since a few of kazoo's tests race with their own timers; the
output says so for each, so that a test which needs it often is seen.

Every process started here is in a process group of its own, and whatever is left of the group at
the end is ended, so that no server outlives the run.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

import kazoo

HERE = pathlib.Path(__file__).resolve().parent

# Two shards of about equal length on a real ZooKeeper. Each has its own servers and ports, so they
# run side by side: the suite mostly waits (for timeouts, sessions and servers that start).
SHARD_FIRST = (
    "test_client",
    "test_connection",
    "test_sasl",
    "test_build",
    "test_security",
    "test_gevent_handler",
    "test_interrupt",
)

# Where kazoo is installed. It is pytest's root, so that a test's name starts with its module.
SITE_PACKAGES = pathlib.Path(kazoo.__file__).resolve().parent.parent

TEST_SECONDS_MAX = 300
SHARD_SECONDS_MAX = 40 * 60
RETRY_SECONDS_MAX = 2 * TEST_SECONDS_MAX


def arguments():
    parser = argparse.ArgumentParser(prog="tests/kazoo/run", description=__doc__.split("\n")[0])
    parser.add_argument("--cluster-size", type=int, choices=(1, 3), default=1)
    parser.add_argument("--bin", type=pathlib.Path, help="the vivarium binary under test")
    parser.add_argument("--java-real", action="store_true", help="test a real ZooKeeper 3.9.5 instead")
    parser.add_argument("--record", action="store_true", help="write the list (only with --java-real)")
    parser.add_argument("--shards", type=int, choices=(1, 2), default=2, help="processes side by side")
    parser.add_argument("--out", type=pathlib.Path, help="keep the junit files and logs here")
    parser.add_argument("-k", dest="keyword", help="only tests that match, as in pytest; nothing is compared")
    args = parser.parse_args()
    if args.java_real == bool(args.bin):
        parser.error("give either --bin PATH or --java-real")
    if args.record and (not args.java_real or args.keyword):
        parser.error("--record needs --java-real and no -k: the list is what a real ZooKeeper passes")
    if args.bin and not os.access(args.bin, os.X_OK):
        parser.error(f"--bin: {args.bin} is not an executable file; build it with cargo build --release")
    return args


def environment(args, port_offset, scratch):
    """The harness's own variables; see kazoo/testing/harness.py."""
    env = dict(os.environ)
    # Each of these changes which tests run or how the servers are set up.
    for name in ("ZOOKEEPER_PATH", "ZOOKEEPER_OBSERVER_START_ID", "ZOOKEEPER_JAAS_AUTH",
                 "ZOOKEEPER_LOCAL_SESSION_RO", "PYTEST_ADDOPTS"):
        env.pop(name, None)
    env.update(
        CI="1",
        ZOOKEEPER_VERSION="3.9.5",
        ZOOKEEPER_CLUSTER_SIZE=str(args.cluster_size),
        ZOOKEEPER_PORT_OFFSET=str(port_offset),
        PYTHONPATH=str(HERE),
        PYTHONDONTWRITEBYTECODE="1",
        TMPDIR=str(scratch),
    )
    if args.java_real:
        env["ZOOKEEPER_CLASSPATH"] = os.environ["REAL_ZOOKEEPER_CLASSPATH"]
    else:
        # The stand-in drops the class path, but the harness insists on one.
        env["ZOOKEEPER_CLASSPATH"] = "none"
        env["TEST_SERVER_BIN"] = str(args.bin.resolve())
        env["PATH"] = f"{HERE / 'bin'}{os.pathsep}{env['PATH']}"
    return env


def free_port_offset(cluster_size, taken):
    """A base from which the harness's ports (ten per server, the first five used) are all free.

    Below 32768, where Linux starts handing out ports to outgoing connections.
    """
    for _ in range(200):
        base = random.randrange(20000, 32000, 100)
        if base in taken:
            continue
        try:
            for server in range(cluster_size):
                for port in range(base + 10 * server, base + 10 * server + 5):
                    with socket.socket() as probe:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    sys.exit("kazoo: no free block of ports between 20000 and 32000 on 127.0.0.1")


class Run:
    """One pytest process with its servers, its junit file and its log."""

    def __init__(self, args, name, targets, out, port_offset):
        self.name = name
        self.junit = out / f"{name}.xml"
        self.log = out / f"{name}.log"
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="kazoo-", dir=out))
        # With --out given twice, the results of last time must not pass for those of this run.
        self.junit.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-ra", "-q", "-p", "no:logging", "-p", "loopback",
                   "-p", "no:cacheprovider", f"--timeout={TEST_SECONDS_MAX}",
                   f"--junitxml={self.junit}", f"--rootdir={SITE_PACKAGES}", "--pyargs", *targets]
        if args.keyword:
            command += ["-k", args.keyword]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=self.scratch, env=environment(args, port_offset, self.scratch),
                start_new_session=True)

    def finish(self, seconds_max):
        """Waits, ends what is left of the process group, and returns {test name: outcome}."""
        try:
            code = self.process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            code = f"ended after {seconds_max} s"
        finally:
            self.end()
        if not self.junit.exists():
            sys.stdout.write(self.log.read_text(errors="replace")[-3000:])
            print(f"kazoo: {self.name}: pytest wrote no results (exit {code}); its log is above")
            return {}
        return read_junit(self.junit)

    def end(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sig)
            except ProcessLookupError:
                break
            time.sleep(0.5)
        self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def read_junit(path):
    outcomes = {}
    for case in ElementTree.parse(path).iter("testcase"):
        # classname is "kazoo.tests.test_lock.TestLock", without the class for a bare function.
        place = case.get("classname", "").removeprefix("kazoo.tests.")
        name = "::".join([*place.split("."), case.get("name")])
        outcome = "passed"
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "failed" if child.tag != "skipped" else f"skipped ({child.get('message')})"
        # A test whose tear-down fails is listed twice.
        if outcomes.get(name, "passed") == "passed":
            outcomes[name] = outcome
    return outcomes


def shards(args):
    modules = sorted(path.stem for path in (SITE_PACKAGES / "kazoo" / "tests").glob("test_*.py"))
    first = [m for m in modules if m in SHARD_FIRST]
    rest = [m for m in modules if m not in SHARD_FIRST]
    groups = [first, rest] if args.shards == 2 else [modules]
    return [[f"kazoo.tests.{m}" for m in group] for group in groups]


def run_suite(args, out):
    outcomes, taken, running = {}, set(), []
    try:
        for number, targets in enumerate(shards(args), 1):
            offset = free_port_offset(args.cluster_size, taken)
            taken.add(offset)
            running.append(Run(args, f"shard-{number}", targets, out, offset))
        for run in running:
            outcomes.update(run.finish(SHARD_SECONDS_MAX))
    finally:
        for run in running:
            if run.process.poll() is None:
                run.end()
    return outcomes


def retry(args, out, name, number):
    module, _, test = name.partition("::")
    offset = free_port_offset(args.cluster_size, set())
    run = Run(args, f"retry-{number}", [f"kazoo.tests.{module}::{test}"], out, offset)
    try:
        return run.finish(RETRY_SECONDS_MAX).get(name, "not run")
    finally:
        if run.process.poll() is None:
            run.end()


def read_list(path):
    lines = path.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def main():
    args = arguments()
    out = args.out or pathlib.Path(tempfile.mkdtemp(prefix="vivarium-kazoo-"))
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    # An interrupted run must still reach the `finally`s that end its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("kazoo: ended by SIGTERM"))

    if args.bin:
        # A build that replaces the binary half-way would have the suite test two servers, or none.
        args.bin = pathlib.Path(shutil.copy2(args.bin, out / "vivarium"))

    started = time.monotonic()
    server = "a real ZooKeeper 3.9.5" if args.java_real else "vivarium"
    print(f"kazoo: suite 2.11.0 against {server}, {args.cluster_size} server(s); logs in {out}", flush=True)
    outcomes = run_suite(args, out)

    expected_path = HERE / f"expected-{args.cluster_size}.txt"
    if args.keyword:
        wanted = sorted(name for name, outcome in outcomes.items() if not outcome.startswith("skipped"))
    elif args.record:
        wanted = sorted(name for name, outcome in outcomes.items() if not outcome.startswith("skipped"))
    else:
        wanted = read_list(expected_path)

    for number, name in enumerate([n for n in wanted if outcomes.get(n) != "passed"], 1):
        first = outcomes.get(name, "not run")
        # A server that fails at everything is not made better by hundreds of further runs.
        if number > 40:
            continue
        outcomes[name] = retry(args, out, name, number)
        print(f"kazoo: {name}: {first}, run again on its own: {outcomes[name]}", flush=True)

    passed = [name for name in wanted if outcomes.get(name) == "passed"]
    missing = [name for name in wanted if outcomes.get(name) != "passed"]
    seconds = time.monotonic() - started

    if args.record:
        noun = "one server" if args.cluster_size == 1 else f"{args.cluster_size} servers"
        with open(expected_path, "w") as file:
            file.write(f"# The tests of kazoo 2.11.0's suite that a real ZooKeeper 3.9.5 passes on {noun}.\n")
            file.write(f"# Written by: tests/kazoo/run --java-real --record --cluster-size {args.cluster_size}\n")
            file.writelines(f"{name}\n" for name in passed)
        for name in sorted(set(outcomes) - set(passed)):
            print(f"kazoo: not in the list: {name}: {outcomes[name]}")
        print(f"kazoo: recorded {len(passed)} of {len(outcomes)} tests in {expected_path.name}, {seconds:.0f} s")
        return 0

    for name in missing:
        print(f"kazoo: MISSING {name}: real ZooKeeper passes it, here: {outcomes.get(name, 'not run')}")
    extra = sorted(n for n, o in outcomes.items() if o == "passed" and n not in set(wanted))
    for name in extra:
        print(f"kazoo: passes here and not on a real ZooKeeper: {name}")
    print(f"kazoo: {len(passed)} of {len(wanted)}, {seconds:.0f} s")
    print(f"{len(passed)} passed, {len(missing)} failed")
    if not missing and args.out is None:
        shutil.rmtree(out)
    return 1 if missing or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
