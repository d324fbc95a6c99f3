"""Attacks by WebSocket: frames that must not be, floods, and clients that never read."""

import asyncio
import json
import random
import socket as sockets
import zlib

import lab
from peers import Socket, Through, attack, close, connect, frame, many, request, rest

#: permessage-deflate as a browser offers it.
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


async def broken(target, shapes, headers=(), at_once=20):
    """Opens a session for each shape again and again; none of them must stay."""
    shapes = list(shapes.items())

    async def one(number):
        while target.left() > 0.3:
            name, data = shapes[number % len(shapes)]
            number += at_once
            session = await Socket.open(target, headers=headers)
            if session is None:
                continue
            await session.send(data)
            end = await session.listen(3)
            if end == "open to the end" and target.left() > 1:
                raise Through(f"a session goes on after {name}")

    await many(at_once, one)


@attack("frames that must not be: unmasked, reserved, bad UTF-8, wrong control frames, lengths up to 2^63")
async def bad_frames(target):
    await broken(target, {
        "an unmasked frame": frame(1, b'{"type":"ping"}', masked=False),
        "a reserved bit": frame(1, b"{}", rsv=2),
        "a reserved opcode": frame(3, b"{}"),
        "a reserved control opcode": frame(11, b""),
        "bad UTF-8": frame(1, b"\xff\xfe{}"),
        "bad UTF-8 in parts": frame(1, b"\xf0\x9f", fin=False) + frame(0, b"\x20"),
        "a ping in parts": frame(9, b"", fin=False),
        "a long ping": frame(9, b"x" * 126),
        "a continuation of nothing": frame(0, b"x"),
        "a message within a message": frame(1, b"{", fin=False) + frame(1, b"}"),
        "a length of 2^63": frame(1, b"x", length=1 << 63),
        "a length of 2^62": frame(1, b"x", length=1 << 62),
        "a length of 1 GiB": frame(1, b"x", length=1 << 30),
        "a length over the bound": frame(1, b"x" * 65_537),
        "a length longer than needed": b"\x81\xfe\x00\x01\0\0\0\0x",
        "a close of one byte": frame(8, b"\x03"),
        "a close with a bad code": frame(8, b"\x03\xed"),
        "bytes on a JSON session": frame(2, b"\x80"),
        "a compressed frame where nothing was agreed": frame(1, b"\x00", rsv=4),
        "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    })


async def flood(target, data, sessions=8, query=""):
    """Sends the same for ever, and reads what comes back."""
    async def one(_):
        while target.left() > 0.3:
            session = await Socket.open(target, query)
            if session is None:
                continue
            listening = asyncio.create_task(session.listen())
            while target.left() > 0 and not listening.done() and await session.send(data()):
                await asyncio.sleep(0)
            await listening

    await many(sessions, one)


@attack("fragments for ever")
async def fragments(target):
    async def one(_):
        while target.left() > 0.3:
            session = await Socket.open(target)
            if session is None:
                continue
            listening = asyncio.create_task(session.listen())
            await session.send(frame(1, b"[", fin=False))
            part = frame(0, b"", fin=False) * 100 + frame(0, b"[", fin=False) * 100
            while target.left() > 0 and not listening.done() and await session.send(part):
                await asyncio.sleep(0)
            await listening

    await many(8, one)


@attack("ping and pong floods")
async def pings(target):
    await flood(target, lambda: frame(9, b"x" * 125) * 50 + frame(10, b"y" * 125) * 50)


@attack("floods of frames: ping, nonsense, publish, history", also=["redis"])
async def frames(target):
    told = [
        {"type": "ping"}, {"type": "nonsense"}, {"type": "history", "channel": "honest", "limit": 1000},
        {"type": "publish", "channel": "flood", "payload": "x" * 2_000}, {"type": "rpc", "method": "m"},
        {"type": "auth", "token": "a.b.c"}, {"type": "subscribe", "channel": "honest", "rewind": 1000},
    ]
    await flood(target, lambda: frame(1, json.dumps(random.choice(told)).encode()) * 20)


@attack("frames that are never finished, 60 KB of 64 in each of 400 sessions")
async def unfinished(target):
    data = frame(1, b" " * 60_000, length=65_000)

    async def one(number):
        session = await Socket.open(
            target, user=f"mallory{number % 50}", headers=[DEFLATE] if number % 2 else [])
        if session and await session.send(data):
            await session.listen()

    await many(400, one)


@attack("subscribers that never read, 150 sessions at 50 messages of 32 KB a second", also=["tls", "redis"])
async def never_read(target):
    sessions = []

    async def one(number):
        session = await Socket.open(target, "channel=loud", f"mallory{number % 50}", buffer=1 << 10)
        if session:
            raw = session.writer.get_extra_info("socket")
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            session.writer.transport.pause_reading()
            sessions.append(session)

    await many(150, one)
    body = b'{"payload":"' + b"x" * 32_000 + b'"}'
    head = [f"Authorization: Bearer {lab.KEY}", "Content-Type: application/json"]
    reader, writer = await connect(target)
    drained = asyncio.create_task(rest(reader, target.left()))
    while target.left() > 0.5:
        writer.write(request(target, "POST", "/v1/channels/loud/messages", head, body))
        await asyncio.sleep(0.02)
    drained.cancel()
    close(writer)
    for session in sessions:
        session.writer.transport.resume_reading()
    await asyncio.gather(*(session.listen(1) for session in sessions))


def names(length=190):
    """Channels that differ in their last characters alone."""
    begin = "flood:" + "a" * (length - 14)
    return [begin + f"{random.getrandbits(32):08x}" for _ in range(128)]


@attack("subscribe floods, and 100 sessions with 128 channels of nearly the same name each", also=["redis"])
async def subscriptions(target):
    async def many_channels(number):
        session = await Socket.open(target, user=f"mallory{number % 50}")
        if session is None:
            return
        for name in names():
            await session.say(type="subscribe", channel=name, id=1)
            await asyncio.sleep(0.012)
        await session.listen()

    async def over_and_over(_):
        while target.left() > 0.3:
            session = await Socket.open(target)
            if session is None:
                continue
            listening = asyncio.create_task(session.listen())
            while target.left() > 0 and not listening.done():
                for name in names(40)[:20]:
                    await session.say(type="subscribe", channel=name)
                    await session.say(type="unsubscribe", channel=name)
            await listening

    await asyncio.gather(many(100, many_channels), many(8, over_and_over))


@attack("deeply nested and overstated JSON and MessagePack")
async def nested(target):
    text = b'{"type":"publish","channel":"a","payload":'
    packed = b"\x83\xa4type\xa7publish\xa7channel\xa1a\xa7payload"
    json_frames = {
        "nested arrays": frame(1, text + b"[" * 60_000 + b"}"),
        "nested objects": frame(1, text + b'{"a":' * 10_000 + b"}"),
        "a long number": frame(1, text + b"9" * 60_000 + b"}"),
        "many members": frame(1, b"{" + b",".join(b'"%d":1' % n for n in range(5_000)) + b"}"),
        "one member, many times": frame(1, b"{" + b'"type":"ping",' * 3_000 + b'"type":"ping"}'),
        "many escapes": frame(1, text + b'"' + b"\\u0000" * 9_000 + b'"}'),
    }
    packed_frames = {
        "nested arrays": frame(2, packed + b"\x91" * 60_000 + b"\xc0"),
        "nested maps": frame(2, packed + b"\x81\xa1a" * 15_000 + b"\xc0"),
        "an array of 4 billion": frame(2, packed + b"\xdd\xff\xff\xff\xff"),
        "a map of 4 billion": frame(2, packed + b"\xdf\xff\xff\xff\xff"),
        "bytes of 4 GB": frame(2, packed + b"\xc6\xff\xff\xff\xff"),
        "a text of 4 GB": frame(2, packed + b"\xdb\xff\xff\xff\xffx"),
        "a frame of 4 billion members": frame(2, b"\xdf\xff\xff\xff\xff\xa4type"),
        "an extension": frame(2, packed + b"\xc9\xff\xff\xff\xff\x01"),
    }

    async def one(number):
        packs = number % 2
        shapes = list((packed_frames if packs else json_frames).values())
        kind = [f"Sec-WebSocket-Protocol: tidewire.{'msgpack' if packs else 'json'}"]
        while target.left() > 0.3:
            session = await Socket.open(target, headers=kind)
            if session is None:
                continue
            listening = asyncio.create_task(session.listen())
            while not listening.done() and target.left() > 0:
                await session.send(random.choice(shapes))
                await asyncio.sleep(0.02)
            await listening

    await many(12, one)


def bomb(size):
    """So many spaces, compressed as permessage-deflate has it."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = squeeze.compress(b" " * size) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    return out[:-4]


@attack("deflate bombs: 50 KB that are 50 MB")
async def bombs(target):
    data = bomb(50 << 20)
    quine = b"\x00\x00\x00\xff\xff" * 10_000
    await broken(target, {
        "a bomb": frame(1, data, rsv=4),
        "a bomb in parts": frame(1, data[:1], fin=False, rsv=4) + frame(0, data[1:60_000]),
        "empty blocks": frame(1, quine, rsv=4),
        "no deflate": frame(1, b"\x07" * 1_000, rsv=4),
        "a window too far": frame(1, b"\x03\xff\xff\x00" * 100, rsv=4),
    }, headers=[DEFLATE])


@attack("WebSockets that never log in")
async def no_login(target):
    async def one(_):
        while target.left() > 0.3:
            session = await Socket.open(target, "channel=honest", user=None)
            if session is None:
                return
            await session.say(type="subscribe", channel="honest", id=1)
            await session.listen()

    await many(1_000, one)
