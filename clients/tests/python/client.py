"""The PyPI package `websockets` as a client of a running node.

    client.py CHECK WS_URL

Runs one check, each a function below; ends with 0 when all that it asserts holds. Run by
../python.test.mjs.
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory


async def ask(socket, **frame):
    """Sends a frame and gives the answer with the same id, leaving out what comes before."""
    await socket.send(json.dumps(frame))
    return await find(socket, lambda answer: answer.get("id") == frame["id"])


async def find(socket, fits):
    async for text in socket:
        frame = json.loads(text)
        if fits(frame):
            return frame
    raise AssertionError("the connection ended")


def is_message(frame):
    return frame["type"] == "message"


async def conversation(url):
    """Subscribe, publish, receive on another session."""
    async with connect(f"{url}/v1/ws") as one, connect(f"{url}/v1/ws?channel=py:talk") as two:
        welcome = json.loads(await one.recv())
        assert welcome["type"] == "welcome" and welcome["channels"] == [], welcome
        assert json.loads(await two.recv())["channels"] == [{"channel": "py:talk"}]

        assert await ask(one, type="subscribe", id=1, channel="py:talk") == {"type": "ack", "id": 1}
        payload = {"text": "Grüße 🌊", "list": [1, 2.5, None, True]}
        publish = {"type": "publish", "channel": "py:talk", "event": "said", "payload": payload}
        ack = await ask(one, id="p", echo=False, messageId="m", **publish)
        assert ack == {"type": "ack", "id": "p", "messageId": "m"}, ack
        message = await find(two, is_message)
        assert message["payload"] == payload and message["event"] == "said", message
        assert message["from"] == {"session": welcome["session"]}, message

        await ask(two, type="publish", id=1, channel="py:talk", payload=2)
        assert (await find(one, is_message))["payload"] == 2, "the first was not for us"
        assert (await ask(one, type="unsubscribe", id=2, channel="py:talk"))["type"] == "ack"
        assert (await ask(one, type="unsubscribe", id=3, channel="py:talk"))["code"] == "not_subscribed"


async def order(url):
    """A thousand messages come in order, each once."""
    async with connect(f"{url}/v1/ws?channel=py:order") as reader, connect(f"{url}/v1/ws") as writer:
        await reader.recv()

        async def write():
            for n in range(1000):
                await ask(writer, type="publish", id=n, channel="py:order", payload=n)

        async def read():
            return [(await find(reader, is_message))["payload"] for _ in range(1000)]

        _, numbers = await asyncio.gather(write(), read())
        assert numbers == list(range(1000)), numbers


async def fragments(url):
    """A message in many frames, cut within characters, with pings between."""
    async with connect(f"{url}/v1/ws?channel=py:parts") as socket:
        await socket.recv()
        text = "🌊ü" * 50
        frame = json.dumps(
            {"type": "publish", "channel": "py:parts", "payload": text}, ensure_ascii=False)
        whole = frame.encode()
        parts = [whole[at:at + 7] for at in range(0, len(whole), 7)]
        pongs = []

        async def cut():
            for part in parts:
                pongs.append(await socket.ping())
                yield part

        # Sent as text although each part is bytes.
        await socket.send(cut(), text=True)
        assert (await find(socket, is_message))["payload"] == text
        await asyncio.gather(*pongs)


async def pings(url):
    """Pings of every length that is allowed are answered with their payload."""
    async with connect(f"{url}/v1/ws", ping_interval=None) as socket:
        for length in (0, 1, 124, 125):
            latency = await (await socket.ping(b"x" * length))
            assert latency >= 0
        # A pong that nobody asked for is passed over (RFC 6455, section 5.5.3).
        await socket.pong(b"unasked")
        assert (await ask(socket, type="ping", id=1))["type"] == "pong"


async def closing(url):
    """The node answers a close with its code, and closes with codes of its own."""
    async with connect(f"{url}/v1/ws") as socket:
        await socket.close(4567, "bye")
        assert socket.close_code == 4567, socket.close_code

    async def closed_by(act):
        async with connect(f"{url}/v1/ws") as socket:
            await act(socket)
            try:
                while True:
                    await socket.recv()
            except ConnectionClosed as error:
                return error.rcvd.code

    assert await closed_by(lambda socket: socket.send(b"binary")) == 1003
    assert await closed_by(lambda socket: socket.send("x" * 65_537)) == 1009
    assert await closed_by(lambda socket: socket.send(b"\xff", text=True)) == 1007

    async def reserved(socket):
        # Opcode 3 is reserved (RFC 6455, section 5.2): a masked, empty frame.
        socket.transport.write(bytes([0x83, 0x80, 0, 0, 0, 0]))

    assert await closed_by(reserved) == 1002


async def subprotocols(url):
    """The node picks the one that it knows, and refuses who offers only others."""
    async with connect(f"{url}/v1/ws", subprotocols=["other", "tidewire.json"]) as socket:
        assert socket.subprotocol == "tidewire.json"
    async with connect(f"{url}/v1/ws") as socket:
        assert socket.subprotocol is None
        # Compression was offered, as this client always does, and not taken.
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
    try:
        await connect(f"{url}/v1/ws", subprotocols=["other"])
        raise AssertionError("it was not refused")
    except InvalidStatus as error:
        assert error.response.status_code == 400, error


async def compressed(url):
    """Messages are compressed both ways, in the windows of 4 KiB that the client asks for."""
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)
    async with connect(f"{url}/v1/ws?channel=py:deflate", extensions=[offer]) as socket:
        agreed = socket.response.headers["Sec-WebSocket-Extensions"]
        assert agreed == (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=12"), agreed
        await socket.recv()
        for size in (1, 40, 1_000, 4_096, 20_000, 60_000):
            payload = ("Grüße 🌊 " * size)[:size // 2]
            publish = {"type": "publish", "channel": "py:deflate", "payload": payload}
            await socket.send(json.dumps(publish, ensure_ascii=False))
            assert (await find(socket, is_message))["payload"] == payload, size
        await asyncio.gather(conversation(url), fragments(url), order(url))


CHECKS = {f.__name__: f for f in (conversation, order, fragments, pings, closing, subprotocols, compressed)}


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(f"{name}: {check.__doc__}" for name, check in CHECKS.items()))
        return
    name, url = sys.argv[1:]
    asyncio.run(asyncio.wait_for(CHECKS[name](url), timeout=30))


main()
