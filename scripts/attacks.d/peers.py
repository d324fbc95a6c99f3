"""What attackers are made of: connections that count how they end, and WebSockets. And the list of
attacks, which the other files fill."""

import asyncio
import collections
import contextlib
import dataclasses
import json
import time

from lab import NODES, PROXY, UPGRADE, frame, token

#: All attacks, in the order of their definition.
ATTACKS = []


class Through(Exception):
    """An attacker got what they must not get."""


@dataclasses.dataclass
class Attack:
    """One attack: a coroutine that runs for so long and tells what the attacker got."""

    name: str
    tool: str
    run: object
    #: Which node it is against, one of `lab.NODES`.
    node: str


def attack(name, tool="own sockets", node="plain", also=()):
    """Adds an attack on a node, and the same on others."""
    def add(run):
        ATTACKS.append(Attack(name, tool, run, node))
        ATTACKS.extend(Attack(f"{name}; {NODES[other][1]}", tool, run, other) for other in also)
        return run
    return add


@dataclasses.dataclass
class Target:
    """What is attacked, and for how long."""

    node: object
    seconds: float
    folder: object
    #: Of nginx, where there is one.
    nginx: object = None
    got: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def count(self, what, times=1):
        self.got[what] += times

    @property
    def port(self):
        return self.node.port

    def left(self):
        return self.end - time.monotonic()

    def begin(self):
        self.end = time.monotonic() + self.seconds

    def outcome(self):
        return ", ".join(f"{count:,} × {what}" for what, count in self.got.most_common(7)) or "nothing"


async def connect(target, port=None, source=None, buffer=1 << 16, alpn=None, bare=False):
    """A connection, with TLS where the node speaks it (unless `bare`); none, and counted, where there is none to
    be had."""
    local = (source, 0) if source else None
    context = None if bare else target.node.context(alpn)
    tls = {"ssl": context, "server_hostname": "localhost"} if context else {}
    try:
        return await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", port or target.port, local_addr=local, limit=buffer, **tls), 5)
    except (OSError, TimeoutError):
        target.count("not connected")
        return None


def close(writer):
    with contextlib.suppress(OSError, RuntimeError):
        writer.transport.abort()


async def rest(reader, seconds):
    """All that comes until the other end closes; and whether it did."""
    out = b""
    try:
        async with asyncio.timeout(max(seconds, 0.05)):
            while part := await reader.read(1 << 16):
                out = (out + part)[-(1 << 20):]
            return out, "closed"
    except TimeoutError:
        return out, "open"
    except OSError:
        return out, "reset"


def statuses(answer):
    """The statuses of the responses of HTTP/1 in some bytes."""
    words = [part[:3].decode("latin1") for part in answer.split(b"HTTP/1.1 ")[1:]]
    return words


async def send(target, raw, port=None, source=None, patience=4.0, whole=False):
    """Sends bytes and tells the statuses (or the whole) that came back, and how it ended."""
    peer = await connect(target, port, source)
    if peer is None:
        return [], "not connected"
    reader, writer = peer
    try:
        writer.write(raw)
        answer, ended = await rest(reader, min(patience, max(target.left(), 0.5)))
        return answer if whole else statuses(answer), ended
    finally:
        close(writer)


def request(target, method="GET", path="/v1/poll?channel=a", headers=(), body=b""):
    """A request of HTTP/1 as it should be."""
    head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{target.port}", *headers]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin1") + body


async def many(times, work):
    """So many at once."""
    await asyncio.gather(*(work(number) for number in range(times)))


class Socket:
    """A WebSocket whose client does as it likes."""

    def __init__(self, target, reader, writer):
        self.target, self.reader, self.writer = target, reader, writer
        self.end = None

    @classmethod
    async def open(cls, target, query="", user="mallory", headers=(), source=None, buffer=1 << 16, port=None):
        """A WebSocket, logged in as a user if there is one; none, and counted, if it is refused."""
        peer = await connect(target, port, source, buffer)
        if peer is None:
            return None
        shown = f"token={token(user)}&" if user else ""
        fields = [f"{name}: {value}" for name, value in UPGRADE.items()]
        peer[1].write(request(target, path=f"/v1/ws?{shown}{query}", headers=[*fields, *headers]))
        try:
            head = await asyncio.wait_for(peer[0].readuntil(b"\r\n\r\n"), 5)
        except (OSError, EOFError, TimeoutError):
            target.count("no handshake")
            close(peer[1])
            return None
        if b" 101 " not in head.split(b"\r\n")[0]:
            target.count(f"HTTP {head[9:12].decode()}")
            close(peer[1])
            return None
        return cls(target, *peer)

    async def send(self, data):
        """Writes as the other end takes it; false when it is gone."""
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), max(self.target.left(), 0.05))
            return not self.writer.is_closing()
        except (OSError, TimeoutError):
            return False

    async def say(self, **members):
        return await self.send(frame(1, json.dumps(members).encode()))

    async def read(self):
        """The next frame: its opcode and its payload."""
        head = await self.reader.readexactly(2)
        length = head[1] & 127
        if length > 125:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8))
        return head[0] & 15, await self.reader.readexactly(length)

    async def listen(self, seconds=None):
        """Reads to the end, or for so long; counts the errors and how it ended."""
        errors = collections.Counter()
        self.end = "open to the end"
        try:
            async with asyncio.timeout(max(self.target.left() if seconds is None else seconds, 0.05)):
                while True:
                    opcode, payload = await self.read()
                    if opcode == 8:
                        self.end = f"closed {int.from_bytes(payload[:2])}"
                        break
                    if opcode == 1 and b'"type":"error"' in payload:
                        errors[json.loads(payload)["code"]] += 1
        except (asyncio.IncompleteReadError, OSError):
            self.end = "cut off"
        except TimeoutError:
            pass
        for code, times in errors.items():
            self.target.count(f"`{code}`", times)
        self.target.count(self.end)
        close(self.writer)
        return self.end


__all__ = ["ATTACKS", "PROXY", "Socket", "Target", "Through", "attack", "close", "connect", "frame", "many",
           "request", "rest", "send", "statuses", "token"]
