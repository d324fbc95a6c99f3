"""Attacks on TLS itself: handshakes that are begun and left, that never end, that are none; what is agreed on in
them and then not kept; and silence behind them."""

import asyncio
import random
import ssl

from lab import trusting
from peers import Through, attack, close, connect, many, request, rest, statuses

#: How long after its beginning a handshake, or the silence behind it, must be at an end: twice the node's time.
PATIENCE = 5.0
#: RFC 8446, section 6.
ALERTS = {0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow",
          40: "handshake_failure", 47: "illegal_parameter", 50: "decode_error", 51: "decrypt_error",
          70: "protocol_version", 80: "internal_error", 100: "no_renegotiation", 109: "missing_extension",
          120: "no_application_protocol"}


def client_hello(alpn=None):
    """The first message of a handshake, as a real client writes it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    if alpn:
        context.set_alpn_protocols(alpn)
    try:
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def answer(out, ended):
    """What a server has said to what was no handshake."""
    if out[:1] == b"\x15" and len(out) >= 7:
        return f"alert {ALERTS.get(out[6], out[6])}"
    if out[:1] == b"\x16":
        return "ServerHello"
    return f"HTTP {statuses(out)[0]}" if statuses(out) else ended


@attack("TLS handshakes that are begun and left, by a ClientHello that is sent again and again", node="tls")
async def begun(target):
    hello = client_hello()

    async def one(_):
        while target.left() > 0:
            peer = await connect(target, bare=True)
            if peer is None:
                continue
            peer[1].write(hello)
            try:
                out = await asyncio.wait_for(peer[0].read(1 << 16), max(target.left(), 0.5))
                target.count(answer(out, "closed"))
            except (OSError, TimeoutError):
                target.count("no answer")
            close(peer[1])

    await many(64, one)


@attack("TLS handshakes that never end: a byte at a time, and halves, 1,000 at once", node="tls")
async def slow(target):
    hello = client_hello()

    async def one(number):
        peer = await connect(target, bare=True)
        if peer is None:
            return
        reader, writer = peer
        listening = asyncio.create_task(rest(reader, PATIENCE))
        if number % 2:
            writer.write(hello[:-1])
        for byte in b"" if number % 2 else hello:
            if listening.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait([listening], timeout=0.1)
        _, ended = await listening
        close(writer)
        if ended == "open":
            raise Through("a handshake does not end")
        target.count(ended)

    await many(1_000, one)


@attack("what is no TLS handshake: SSL 2 and 3, garbage, records too long or too many, HTTP, 20 shapes", node="tls")
async def garbage(target):
    hello = client_hello()
    record = hello[:5]
    shapes = [
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(36),
        b"\x16\x03\x00" + hello[3:],
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        b"\x16\x03\x01\xff\xff" + bytes(1 << 16),
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(0x3FFC),
        (b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + bytes(0x3FFC)) * 5,
        b"\x16\x03\x01\x00\x00" * 1_000 + hello,
        b"".join(b"\x16\x03\x01\x00\x01" + bytes([byte]) for byte in hello[5:]) + hello,
        b"\x17\x03\x03\x00\x10" + bytes(16),
        b"\x15\x03\x01\x00\x02\x01\x00" * 1_000,
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x14\x03\x03\x00\x01\x01" * 1_000,
        b"\x18\x03\x02\x00\x03\x01\x40\x00",
        hello * 3,
        hello + b"\x17\x03\x03\x40\x00" + bytes(0x4000),
        hello[:-20] + random.randbytes(20),
        record + random.randbytes(len(hello) - 5),
        random.randbytes(1 << 14).replace(b"G", b""),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]

    async def one(number):
        while target.left() > 0:
            number += 1
            peer = await connect(target, bare=True)
            if peer is None:
                continue
            peer[1].write(shapes[number % len(shapes)])
            # What is begun as it should be is waited for; it ends with the time of a head.
            out, ended = await rest(peer[0], min(1.0, max(target.left(), 0.05)))
            target.count(answer(out, ended))
            close(peer[1])

    await many(20, one)


@attack("protocols that are agreed on in the TLS handshake and not kept, or that nobody speaks", node="tls")
async def protocols(target):
    told = [(b"h2", request(target)), (b"http/1.1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
            (None, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)), (b"h2", random.randbytes(1_000))]
    unknown = [["spdy/3"], ["h3"], ["H2"], ["http/1.0"], [f"x-{n}" for n in range(2_000)]]

    async def unkept(number):
        while target.left() > 0:
            number += 1
            alpn, data = told[number % len(told)]
            peer = await connect(target, alpn=alpn and alpn.decode())
            if peer is None:
                continue
            peer[1].write(data)
            out, ended = await rest(peer[0], PATIENCE)
            if ended == "open":
                raise Through(f"a connection goes on that breaks what was agreed on: {alpn}")
            target.count(f"HTTP {statuses(out)[0]}" if statuses(out) else ended)
            close(peer[1])

    async def unspoken(number):
        context = trusting(target.node.authority, unknown[number])
        while target.left() > 0:
            try:
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", target.port, ssl=context, server_hostname="localhost")
            except OSError as error:
                refused = "no application protocol" in str(error)
                target.count("alert no_application_protocol" if refused else "cut off")
                continue
            close(writer)
            raise Through("a protocol is agreed on that the node does not speak")

    await asyncio.gather(many(8, unkept), many(len(unknown), unspoken))


@attack("TLS 1.2 renegotiation and TLS 1.3 changes of keys without end", "openssl s_client", node="tls")
async def renegotiation(target):
    async def one(number):
        version, word = ("-tls1_2", b"R\n") if number % 2 else ("-tls1_3", b"K\n")
        while target.left() > 0.3:
            process = await asyncio.create_subprocess_exec(
                "openssl", "s_client", "-connect", f"127.0.0.1:{target.port}", "-CAfile", target.node.authority,
                version, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT)
            told = asyncio.create_task(process.stdout.read())
            sent = 0
            # Each needs a turn of the client's loop, or it is read as one line.
            while not told.done() and target.left() > 0 and sent < 1_000:
                process.stdin.write(word)
                sent += 1
                await asyncio.wait([told], timeout=0.002)
            if not told.done():
                process.kill()
            out = await told
            await process.wait()
            if b"KEYUPDATE" in out:
                target.count("changes of keys", out.count(b"KEYUPDATE"))
            elif b"no renegotiation" in out:
                target.count("no_renegotiation")
            elif out.count(b"verify return") > 4:
                raise Through("a handshake within a connection")
            else:
                target.count("cut off")

    await many(8, one)


@attack("silence behind the TLS handshake, 400 connections of HTTP/1 and HTTP/2", node="tls")
async def silent(target):
    async def one(number):
        peer = await connect(target, alpn=["http/1.1", "h2"][number % 2])
        if peer is None:
            return
        out, ended = await rest(peer[0], PATIENCE)
        close(peer[1])
        if ended == "open":
            raise Through("silence is waited for without end")
        target.count(f"{len(out)} bytes, then {ended}" if out else ended)

    await many(400, one)


@attack("a few records a second: TLS that drips", node="tls")
async def dripping(target):
    """Whole records of a byte of a head each: what is decrypted of them is little, and the head never ends."""

    async def one(_):
        peer = await connect(target, alpn="http/1.1")
        if peer is None:
            return
        reader, writer = peer
        listening = asyncio.create_task(rest(reader, 2 * PATIENCE))
        began = asyncio.get_running_loop().time()
        head = request(target, headers=["X: " + "a" * 1_000])
        for byte in head:
            if listening.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait([listening], timeout=0.05)
        out, ended = await listening
        took = asyncio.get_running_loop().time() - began
        close(writer)
        if ended == "open" or took > PATIENCE + 1:
            raise Through("a head that drips has no end")
        target.count(f"HTTP {statuses(out)[0]}" if statuses(out) else ended)

    await many(200, one)
