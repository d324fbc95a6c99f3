"""A Redis and nodes for measurements, and what the kernel says about them.

Used by scripts/million and scripts/growth. Everything listens on loopback, on free ports.
"""

import itertools
import json
import os
import pathlib
import random
import resource
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = os.sysconf("SC_PAGE_SIZE")


# Below those that the kernel gives to clients, of which there may be many here.
PORTS = itertools.count(random.randrange(10_000, 30_000))


def free_port():
    for port in PORTS:
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def resident(pids):
    """Resident memory of processes in MiB."""
    pages = (int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return sum(pages) * PAGE / 2**20


def processor(pids):
    """Processor time of processes in seconds, in user space and in the kernel."""
    used = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            try:
                used += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                # A thread that has just ended.
                pass
    return used / 1e9


def available():
    """Memory that the machine can still give, in MiB."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/meminfo does not tell the available memory")


def allow_files(count):
    """As many open files as may be; an error when these are not."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        raise SystemExit(f"{count} open files in a process are needed, {hard} are allowed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def binaries(folder):
    """Where the binaries are: in this folder, or built."""
    if folder:
        return pathlib.Path(folder).resolve()
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "-p", "tidewire", "-p", "tidewire-bench"],
        cwd=ROOT, check=True,
    )
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release"


class Node:
    """A node and its place."""

    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log
        self.pid = process.pid

    def wait(self):
        while self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise SystemExit(f"a node does not start:\n{self.log.read_text()}")


class Redis:
    """A redis-server of its own, and a connection to it."""

    def __init__(self, rig, core=None):
        self.port = free_port()
        self.pid = rig.start(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "",
             "--appendonly", "no", "--dir", str(rig.folder)], rig.folder / "redis.log", core).pid
        for _ in range(100):
            try:
                self.socket = socket.create_connection(("127.0.0.1", self.port), 30)
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("redis-server does not start")

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def ask(self, *words):
        """One command and its reply, raw; a whole bulk string, or what came first of another."""
        out = b"*%d\r\n" % len(words)
        for word in words:
            word = word.encode()
            out += b"$%d\r\n%s\r\n" % (len(word), word)
        self.socket.sendall(out)
        reply = self.socket.recv(65536)
        if reply.startswith(b"-"):
            raise SystemExit(f"Redis: {words[0]}: {reply.decode().strip()}")
        if reply.startswith(b"$"):
            head, _, body = reply.partition(b"\r\n")
            while len(body) < int(head[1:]) + 2:
                body += self.socket.recv(65536)
            return body
        return reply

    def stats(self):
        """What `INFO stats` counts."""
        lines = (line.split(":", 1) for line in self.ask("INFO", "stats").decode().splitlines() if ":" in line)
        return {name: float(value) for name, value in lines if value.replace(".", "", 1).isdigit()}

    def publish(self, channel, number):
        """A stored message that carries the time, as tidewire-bench reads it."""
        marker = "twb:%016x.%08x" % (time.clock_gettime_ns(time.CLOCK_MONOTONIC), number)
        self.ask("FCALL", "tidewire_publish", "1", f"tidewire:{channel}", json.dumps(marker))


class Rig:
    """All processes of a measurement; they end with the `with` block."""

    def __init__(self, folder):
        self.binary = binaries(folder)
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)
        self.processes = []
        self.settings("")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.temporary.cleanup()

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()
        self.processes = []

    def settings(self, text):
        (self.folder / "tidewire.toml").write_text("[namespaces.live]\nhistory_size = 0\n" + text)

    def start(self, command, log=None, core=None):
        prefix = [] if core is None else ["taskset", "-c", str(core)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWIRE_")}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE}
        if log:
            with open(log, "wb") as file:
                output = {"stdout": os.dup(file.fileno()), "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen([*prefix, *map(str, command)], text=True, env=environment, **output)
        if log:
            os.close(output["stdout"])
        self.processes.append(process)
        return process

    def node(self, redis=None, core=None, wrapper=()):
        """Starts a node, by way of another command if one is given; `wait` for it."""
        port, log = free_port(), self.folder / f"node-{len(self.processes)}.log"
        where = ["--redis", redis.url] if redis else []
        process = self.start(
            [*wrapper, self.binary / "tidewire", "serve", "--config", self.folder / "tidewire.toml",
             "--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0", *where], log, core)
        return Node(process, port, log)

    def bench(self, *arguments, core=None):
        """Runs tidewire-bench; its outcome."""
        prefix = [] if core is None else ["taskset", "-c", str(core)]
        done = subprocess.run(
            [*prefix, self.binary / "tidewire-bench", *map(str, arguments), "--json"],
            capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise SystemExit(done.stderr.strip())
        return json.loads(done.stdout)

    def crowd(self, count, hold, url, *more, core=None):
        """Connections that are held, or let go with `outcome`; returns when all are subscribed."""
        process = self.start(
            [self.binary / "tidewire-bench", "connect", "--connections", count, "--hold", f"{hold}s",
             "--until-closed", "--json", "--url", url, *more], core=core)
        said = []
        for line in process.stderr:
            if "are open" in line:
                return process
            said.append(line)
        raise SystemExit(f"the connections do not open: {''.join(said)}")


def outcome(crowd):
    """Lets a crowd go, and tells what it saw."""
    out, _ = crowd.communicate(timeout=60)
    return json.loads(out)
