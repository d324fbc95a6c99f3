"""Attacks on logging in and on addresses: forged tokens, guesses, headers that only proxies write,
replayed hooks."""

import asyncio
import hashlib
import hmac
import http.client
import json
import os
import random
import shutil
import subprocess
import time

import lab
from http1 import smuggle
from lab import ROOT, base64url, jwt
from peers import PROXY, Socket, Through, attack, close, connect, many, request, send, token


def forged(folder):
    """Credentials that must open nothing, each with its name."""
    good = {"sub": "alice", "exp": int(time.time()) + 600, "subscribe": ["*"], "publish": ["*"]}
    public = (folder / "public.pem").read_bytes()
    head, claims, signature = token("alice").split(".")
    other = base64url(json.dumps(good | {"sub": "admin"}).encode())
    es256 = base64url(b'{"alg":"ES256"}')
    with_key = {"kty": "oct", "k": base64url(b"x" * 32), "alg": "HS256", "kid": "mine"}
    return {
        "alg none": jwt(good, {"alg": "none"}, None),
        "alg None": jwt(good, {"alg": "None"}, None),
        "alg none, signed": jwt(good, {"alg": "none"}),
        "no alg": jwt(good, {"alg": ""}),
        "an array as alg": jwt(good, {"alg": ["HS256"]}),
        "HS256 by the public key": jwt(good, secret=public),
        "HS256 by the public key, stripped": jwt(good, secret=public.strip()),
        "HS256 by the key's bytes": jwt(good, secret=lab.base64.b64decode(b"".join(public.split(b"\n")[1:-2]))),
        "RS256 by the secret": jwt(good, {"alg": "RS256"}),
        "HS512 by the secret": jwt(good, {"alg": "HS512"}),
        "ES256 of zeros": es256 + f".{claims}.{base64url(bytes(64))}",
        "an empty secret": jwt(good, secret=b""),
        "another secret": jwt(good, secret=b"x" * 32),
        "no signature": f"{head}.{claims}.",
        "half a signature": f"{head}.{claims}.{signature[:20]}",
        "other claims": f"{head}.{other}.{signature}",
        "expired": jwt(good | {"exp": int(time.time()) - 60}),
        "without an end": jwt({"sub": "alice", "subscribe": ["*"]}),
        "an end in the year 10^300": jwt(good | {"exp": "1e300"}),
        "not yet": jwt(good | {"nbf": int(time.time()) + 600}),
        "for somebody else": jwt(good | {"aud": "another"}),
        "kid: a path": jwt(good, {"kid": "../../../../dev/null"}, b""),
        "kid: SQL": jwt(good, {"kid": "x' UNION SELECT 'a"}, b"a"),
        "kid: a command": jwt(good, {"kid": "a|sleep 5"}, b"x" * 32),
        "jwk": jwt(good, {"jwk": with_key, "kid": "mine"}, b"x" * 32),
        "jku": jwt(good, {"jku": "http://127.0.0.1:1/keys", "kid": "mine"}, b"x" * 32),
        "x5u": jwt(good, {"x5u": "http://127.0.0.1:1/cert"}, b"x" * 32),
        "crit": jwt(good, {"crit": ["exp"]}),
        "b64": jwt(good, {"b64": False, "crit": ["b64"]}),
        "a name twice": jwt(good, secret=b"x" * 32) + "." + signature,
        "a name of no bytes": jwt(good | {"sub": ""}),
        "8 KiB": jwt(good | {"x": "x" * 9_000}),
        "nested": f"{base64url(b'[' * 5_000)}.{claims}.{signature}",
        "dots": "." * 2_000,
        "a key, almost": lab.KEY[:-1],
    }


@attack("forged, expired and confused tokens, 35 kinds on every path")
async def tokens(target):
    shapes = forged(target.folder)

    async def one(name, value):
        bearer = [f"Authorization: Bearer {value}", "Content-Type: application/json"]
        raws = [
            request(target, path="/v1/poll?channel=honest&wait=0", headers=bearer),
            request(target, path=f"/v1/sse?channel=honest&token={value}"),
            request(target, path="/v1/channels/honest/messages", headers=bearer),
            request(target, "POST", "/v1/channels/honest/messages", bearer, b'{"payload":"evil"}'),
        ]
        for raw in raws:
            answers, ended = await send(target, raw, patience=0.5)
            if any(answer.startswith("2") for answer in answers):
                raise Through(f"let in with a forged token: {name}")
            target.count(f"HTTP {answers[0]}" if answers else ended)
        session = await Socket.open(target, user=None)
        if session:
            await session.say(type="auth", token=value, id=1)
            _, told = await asyncio.wait_for(session.read(), 3)
            # The first frame may be a welcome as nobody.
            if b'"type":"ack"' in told or b'"user"' in told:
                raise Through(f"logged in with a forged token: {name}")
            await session.listen(3)

    work = list(shapes.items())
    while work:
        await asyncio.gather(*(one(*each) for each in work[:6]))
        work = work[6:]


@attack("guessing tokens from one address", node="counted")
async def guesses(target):
    async def one(number):
        while target.left() > 0:
            shown = jwt({"sub": "alice", "exp": 9_999_999_999}, secret=random.randbytes(32))
            answers, ended = await send(
                target, request(target, path=f"/v1/poll?channel=a&token={shown}", headers=["Connection: close"]),
                source="127.0.3.1")
            target.count(f"HTTP {answers[0]}" if answers else ended)
            if "200" in answers:
                raise Through("a guess was right")

    await many(8, one)
    if not target.got["HTTP 429"]:
        raise Through("one may guess without end")


async def streams(target, times, headers, source, port=None):
    """Opens streams that stay and tells how many did."""
    peers = []

    async def one(number):
        peer = await connect(target, port, source)
        if peer is None:
            return
        head = [f"Authorization: Bearer {token(f'user{number % 50}')}", *headers(number)]
        peer[1].write(request(target, path="/v1/sse?channel=crowd", headers=head))
        try:
            line = await asyncio.wait_for(peer[0].readuntil(b"\r\n\r\n"), 3)
            more = await asyncio.wait_for(peer[0].readuntil(b"\n\n"), 3)
            if b" 200 " in line and b"welcome" in more + await asyncio.wait_for(peer[0].readuntil(b"\n\n"), 1):
                peers.append(peer)
                return target.count("streams")
            target.count("refused")
        except (OSError, EOFError, TimeoutError):
            target.count("refused")
        close(peer[1])

    # Slowly enough for the pace of handshakes.
    for begin in range(0, times, 50):
        await asyncio.gather(*(one(number) for number in range(begin, min(begin + 50, times))))
        await asyncio.sleep(0.6)
    held = len(peers)
    for _, writer in peers:
        close(writer)
    return held


def address():
    return ".".join(str(random.randint(1, 220)) for _ in range(4))


@attack("made-up X-Forwarded-For and Forwarded, straight to a node that counts addresses", node="counted")
async def spoofed(target):
    def headers(_):
        return [f"X-Forwarded-For: {address()}", f"Forwarded: for={address()}", f"X-Real-IP: {address()}"]

    if await streams(target, 250, headers, "127.0.3.2") > 100:
        raise Through("a made-up address counts")


@attack("the same behind a proxy that adds to what is there", node="counted")
async def behind_a_proxy(target):
    odd = [lambda: address(), lambda: "\xff", lambda: '"', lambda: "unknown", lambda: "127.0.0.7", lambda: ", ,"]

    def headers(number):
        return [f"X-Forwarded-For: {odd[number % len(odd)]()}, 203.0.113.9"]

    if await streams(target, 250, headers, PROXY) > 100:
        raise Through("what a client wrote hides its address")


@attack("the same through nginx with the repository's files", "nginx", node="counted")
async def through_nginx(target):
    if target.nginx is None:
        return target.count("left out: there is no nginx here")

    def headers(_):
        return [f"X-Forwarded-For: {address()}", f"Forwarded: for={address()}"]

    if await streams(target, 250, headers, "127.0.3.4", target.nginx) > 100:
        raise Through("a made-up address counts")


@attack("request smuggling through nginx, 16 shapes", "nginx", node="counted")
async def smuggling_through(target):
    if target.nginx is None:
        return target.count("left out: there is no nginx here")
    await smuggle(target, target.nginx, target.folder / "nginx" / "access.log")


@attack("a flood of handshakes from one address", node="counted")
async def handshakes(target):
    async def one(_):
        while target.left() > 0:
            session = await Socket.open(target, source="127.0.3.5")
            if session:
                target.count("WebSocket")
                close(session.writer)

    await many(16, one)
    # In a second 100, and twice that at once.
    if target.got["WebSocket"] > 100 * (target.seconds + 3):
        raise Through("handshakes are not counted")


@attack("forged and replayed questions to the example of a hook", "examples/hooks")
async def hooks(target):
    if shutil.which("node") is None:
        return target.count("left out: there is no Node here")
    port = lab.free_port()
    backend = subprocess.Popen(
        ["node", ROOT / "examples/hooks/server.mjs"], stdout=subprocess.PIPE,
        env=os.environ | {"SECRET": lab.HOOK_SECRET, "PORT": str(port)})
    try:
        await asyncio.to_thread(backend.stdout.readline)
        await asyncio.to_thread(questions, target, port)
    finally:
        backend.kill()
        backend.wait()


def sign(body, at, secret=lab.HOOK_SECRET):
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


def questions(target, port):
    body = json.dumps({"hook": "rpc", "id": "1", "method": "messages.count", "payload": None}).encode()
    other = body.replace(b"messages.count", b"echo")
    now = int(time.time())
    right = sign(body, now)
    shapes = {
        "replayed after 61 s": (body, sign(body, now - 61)), "of the future": (body, sign(body, now + 120)),
        "another time": (body, right.replace(f"t={now}", f"t={now + 1}")), "another body": (other, right),
        "unsigned": (body, ""), "no v1": (body, f"t={now}"), "an empty v1": (body, f"t={now},v1="),
        "v0": (body, right.replace("v1", "v0")), "half": (body, right[:-32]), "no time": (body, right.split(",")[1]),
        "another secret": (body, sign(body, now, "x" * 32)), "two times": (body, f"t={now - 100}," + right),
    }

    def ask(body, signature):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        client.request("POST", "/rpc", body, {"tidewire-signature": signature})
        return client.getresponse().status

    if ask(body, right) != 200:
        raise Through("the example does not take a good question")
    for name, (told, signature) in shapes.items():
        status = ask(told, signature)
        target.count(f"HTTP {status}")
        if status == 200:
            raise Through(f"the example believes a forgery: {name}")
