"""Attacks by HTTP/1: slow ones, floods, requests that two readers might read differently."""

import asyncio
import shutil

import lab
from peers import Socket, Through, attack, close, connect, many, request, rest, send, statuses, token

#: How many connections an attack holds at a time.
CROWD = 1_000


async def slowhttptest(target, mode, path, *more):
    """Runs slowhttptest, and tells what it saw at its end."""
    if shutil.which("slowhttptest") is None:
        return target.count("left out: there is no slowhttptest here")
    report = target.folder / f"slow{mode}"
    process = await asyncio.create_subprocess_exec(
        "slowhttptest", mode, "-c", str(CROWD), "-r", str(CROWD), "-l", str(round(target.seconds)),
        "-p", "2", "-g", "-o", report, "-u", f"http://127.0.0.1:{target.port}{path}", *more,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    await process.wait()
    # Of each second: closed, pending, connected, and not 0 while its probe is answered.
    rows = [line.split(",")[1:] for line in report.with_suffix(".csv").read_text().splitlines()[1:]]
    closed, pending, connected, _ = rows[-1]
    for name, count in (("closed", closed), ("not connected", pending), ("open to the end", connected)):
        if count != "0":
            target.count(name, int(count))
    if any(row[3] == "0" for row in rows):
        target.count("its probe had no answer within 2 s")


@attack("slow headers", "slowhttptest -H")
async def slow_headers(target):
    await slowhttptest(target, "-H", "/v1/poll?channel=a", "-i", "1", "-x", "10")


@attack("slow body, without a login", "slowhttptest -B")
async def slow_body(target):
    await slowhttptest(target, "-B", "/v1/channels/a/messages", "-i", "1", "-s", "8192")


@attack("slow body, logged in")
async def slow_body_in(target):
    async def one(_):
        peer = await connect(target)
        if peer is None:
            return
        reader, writer = peer
        head = [f"Authorization: Bearer {token()}", "Content-Type: application/json", "Content-Length: 60000"]
        writer.write(request(target, "POST", "/v1/channels/a/messages", head))
        answer = asyncio.create_task(rest(reader, target.left()))
        while not answer.done() and target.left() > 0:
            writer.write(b" ")
            await asyncio.wait([answer], timeout=0.5)
        out, ended = await answer
        target.count(" ".join([f"HTTP {'/'.join(statuses(out)) or '-'}", ended]))
        close(writer)

    await many(CROWD // 2, one)


@attack("slow read", "slowhttptest -X")
async def slow_read(target):
    await slowhttptest(target, "-X", "/", "-w", "10", "-y", "20", "-z", "5", "-n", "1", "-k", "8")


@attack("ranges without end", "slowhttptest -R")
async def ranges(target):
    await slowhttptest(target, "-R", "/", "-a", "1", "-b", "3000")


@attack("connect, and go away at once", also=["tls"])
async def abandon(target):
    async def one(number):
        while target.left() > 0:
            peer = await connect(target, source=f"127.0.1.{1 + number % 250}")
            if peer:
                if number % 2:
                    peer[1].write(b"GET /v1/ws HTTP/1.1\r\nHost: ")
                close(peer[1])
                target.count("connected")
            await asyncio.sleep(0)

    await many(64, one)


@attack("connections that never speak, and halves of requests")
async def silent(target):
    halves = [b"", b"G", b"PR", b"GET /v1/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n", b"\r\n" * 20]

    async def one(number):
        peer = await connect(target, source=f"127.0.2.{1 + number % 250}")
        if peer:
            peer[1].write(halves[number % len(halves)])
            out, ended = await rest(peer[0], target.left())
            target.count(f"HTTP {statuses(out)[0]}" if statuses(out) else ended)
            close(peer[1])

    await many(3 * CROWD, one)


@attack("heads too large: 1 MiB, 1,000 fields, a long line")
async def heads(target):
    large = [
        request(target, headers=["X-A: " + "a" * (1 << 20)]),
        request(target, headers=[f"X-{n}: a" for n in range(1_000)]),
        request(target, path="/" + "a" * (1 << 20)),
        request(target, headers=["Cookie: " + "a=b; " * 20_000]),
        b"A" * (1 << 20),
    ]

    async def one(number):
        while target.left() > 0:
            answers, ended = await send(target, large[number % len(large)])
            if "200" in answers:
                raise Through("a head over the bound is answered with 200")
            target.count(f"HTTP {answers[0]}" if answers else ended)

    await many(20, one)


@attack("bodies too large: announced, chunked, nested")
async def bodies(target):
    head = [f"Authorization: Bearer {token()}", "Content-Type: application/json"]
    path = "/v1/channels/a/messages"
    nested = b'{"payload":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    large = [
        request(target, "POST", path, [*head, "Content-Length: 99999999999"]) + b" " * 200_000,
        request(target, "POST", path, [*head, "Transfer-Encoding: chunked"]) + chunk * 64,
        request(target, "POST", path, [*head, "Transfer-Encoding: chunked"]) + b"FFFFFFFFFFFFFFFFF\r\n",
        request(target, "POST", path, head, nested),
        request(target, "POST", "/v1/messages", head, b'{"messages":[' + b"[" * 60_000),
        request(target, "POST", "/v1/messages", head, b'{"messages":' + b'{"a":' * 10_000),
    ]

    async def one(number):
        while target.left() > 0:
            answers, ended = await send(target, large[number % len(large)], patience=1)
            if "200" in answers:
                raise Through("a body over the bound is taken")
            target.count(f"HTTP {answers[0]}" if answers else ended)

    await many(24, one)


def smuggled(port, channel):
    """Requests with a second one inside, which must not be done; each with its name."""
    key = f"Authorization: Bearer {lab.KEY}\r\nContent-Type: application/json"
    body = '{"payload":"smuggled"}'
    inner = (f"POST /v1/channels/{channel}/messages HTTP/1.1\r\nHost: a\r\n{key}\r\n"
             f"Content-Length: {len(body)}\r\n\r\n{body}")
    begin = f"POST /v1/channels/outer/messages HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{key}\r\n"
    whole = len(inner)
    return {
        "CL.TE": f"{begin}Content-Length: {whole + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        "TE.CL": f"{begin}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
                 f"{whole:x}\r\n{inner}\r\n0\r\n\r\n",
        "two lengths": f"{begin}Content-Length: 0\r\nContent-Length: {whole}\r\n\r\n{inner}",
        "a list of lengths": f"{begin}Content-Length: 0, {whole}\r\n\r\n{inner}",
        "signed length": f"{begin}Content-Length: +0\r\n\r\n{inner}",
        "TE with a space": f"{begin}Transfer-Encoding : chunked\r\nContent-Length: {whole + 5}\r\n\r\n"
                           f"0\r\n\r\n{inner}",
        "TE of another kind": f"{begin}Transfer-Encoding: xchunked\r\nContent-Length: {whole + 5}\r\n\r\n"
                              f"0\r\n\r\n{inner}",
        "TE folded": f"{begin}Transfer-Encoding:\r\n chunked\r\nContent-Length: {whole + 5}\r\n\r\n"
                     f"0\r\n\r\n{inner}",
        "TE twice": f"{begin}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{inner}",
        "bare LF": f"{begin}X: a\nContent-Length: {whole}\r\n\r\n{inner}",
        "bare CR": f"{begin}X: a\rContent-Length: {whole}\r\n\r\n{inner}",
        "NUL": f"{begin}X: a\0\r\nContent-Length: {whole}\r\n\r\n{inner}",
        "chunk extension": f"{begin}Transfer-Encoding: chunked\r\n\r\n0;\nx\r\n\r\n{inner}",
        "chunk with a bare LF": f"{begin}Transfer-Encoding: chunked\r\n\r\n2\r\n  \r\n0\n\n{inner}",
        "GET with a body": f"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {whole}\r\n\r\n{inner}",
        "HTTP/1.0 chunked": f"{begin.replace('1.1', '1.0')}Transfer-Encoding: chunked\r\n"
                            f"Connection: keep-alive\r\n\r\n0\r\n\r\n{inner}",
    }


async def smuggle(target, port, log=None):
    """Sends each shape. The inner request must not be done, unless the proxy has seen it, too: then
    both read the bytes alike, and it is a second request."""
    for at, name in enumerate(smuggled(port, "")):
        channel = f"smuggled-{at}"
        raw = smuggled(port, channel)[name].encode("latin1")
        answers, ended = await send(target, raw, port=port, patience=0.5)
        kept = request(target, path=f"/v1/channels/{channel}/messages", headers=[
            f"Authorization: Bearer {lab.KEY}", "Connection: close"])
        told, _ = await send(target, kept, patience=2, whole=True)
        if b'"smuggled"' not in told:
            target.count(f"HTTP {answers[0]}" if answers else ended)
        elif log and f"/{channel}/" in log.read_text():
            target.count("second request for the proxy, too")
        else:
            raise Through(f"a request was smuggled: {name}")


@attack("request smuggling, 16 shapes")
async def smuggling(target):
    await smuggle(target, target.port)


@attack("publish flood by one user, pipelined", also=["redis"])
async def publishes(target):
    body = b'{"payload":"' + b"x" * 512 + b'"}'
    raw = request(target, "POST", "/v1/channels/flood/messages", [
        f"Authorization: Bearer {token()}", "Content-Type: application/json"], body)

    async def one(_):
        peer = await connect(target)
        if peer is None:
            return
        reader, writer = peer

        async def pour():
            while target.left() > 0:
                writer.write(raw * 16)
                await writer.drain()

        pouring = asyncio.create_task(pour())
        out = b""
        try:
            async with asyncio.timeout(target.left()):
                while part := await reader.read(1 << 16):
                    out = out[-16:] + part
                    for status in statuses(out):
                        target.count(f"HTTP {status}")
                    out = out[-8:] if b"HTTP/1.1 " not in out[-16:] else out[-16:]
        except (TimeoutError, OSError):
            pass
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
        close(writer)

    await many(4, one)


@attack("a page of another site with the user's cookie (CSWSH)")
async def cross_site(target):
    cookie = f"Cookie: tidewire_token={token('alice')}"
    pages = [[], ["Origin: https://evil.example"], ["Origin: null"], ["Origin: https://app.example.evil"],
             ["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site"], ["Origin: http://app.example"],
             ["Origin: https://evil.example", "Sec-Fetch-Site: same-origin"]]
    for page in pages:
        for path in ("/v1/sse?channel=honest", "/v1/poll?channel=honest&wait=0", "/v1/channels/honest/messages"):
            answers, ended = await send(target, request(target, path=path, headers=[cookie, *page]), patience=0.3)
            target.count(f"HTTP {answers[0]}" if answers else ended)
            if "200" in answers:
                raise Through(f"the cookie counts with {page} on {path}")
        socket = await Socket.open(target, "channel=honest", user=None, headers=[cookie, *page])
        if socket:
            await socket.say(type="publish", channel="honest", payload="evil", id=1)
            opcode, payload = await asyncio.wait_for(socket.read(), 3)
            close(socket.writer)
            if opcode == 1 and b"error" not in payload:
                raise Through(f"the cookie opens a WebSocket with {page}: {payload}")
            target.count("WebSocket as nobody")
