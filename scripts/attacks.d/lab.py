"""What the attacks are run against and measured by: a node, an honest client, the node's memory.

Everything listens on loopback and ends with the script. Attackers come from other addresses of
127.0.0.0/8 than the honest client where that matters.
"""

import base64
import hashlib
import hmac
import http.client
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = os.sysconf("SC_PAGE_SIZE")
SECRET = "0123456789abcdef0123456789abcdef-of-the-attacks"
KEY = "the-api-key-of-the-attacks"
HOOK_SECRET = "the-secret-of-the-hooks-of-the-attacks"
#: Where the proxy is that the second node trusts.
PROXY = "127.0.0.7"

#: As it comes, but with shorter times, so that an attack of seconds sees them end.
PLAIN = f"""
[auth]
mode = "required"
login_timeout = "2s"
allowed_origins = ["https://app.example"]
api_keys = [{{ name = "backend", key = "{KEY}" }}]
personal_namespace = "user"
[auth.jwt]
secret = "{SECRET}"
public_key_file = "public.pem"
[compression]
websocket = true
[limits]
head_timeout = "2s"
body_timeout = "2s"
"""
#: Where addresses are counted, as they are by default where they are of the internet.
COUNTED = PLAIN + f"""connections_per_address = 100
handshakes_per_second = 100
failed_logins_per_minute = 60
trusted_proxies = ["{PROXY}"]
"""
#: The same behind TLS of its own, and on a Redis.
TLS = PLAIN + """[tls]
certificate_file = "server.pem"
key_file = "server.key"
"""
REDIS = PLAIN + """[broker]
url = "redis://127.0.0.1:6379"
"""
#: The nodes that are attacked, one after the other, and what is said about attacks that several get.
NODES = {"plain": (PLAIN, ""), "counted": (COUNTED, ""), "tls": (TLS, "over TLS"), "redis": (REDIS, "on Redis")}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(claims, header=None, secret=SECRET):
    """A token by HMAC, or one without a signature."""
    header = {"alg": "HS256", "typ": "JWT"} | (header or {})
    text = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    if secret is None:
        return text + "."
    secret = secret if isinstance(secret, bytes) else secret.encode()
    return text + "." + base64url(hmac.new(secret, text.encode(), hashlib.sha256).digest())


def token(user="mallory", seconds=600):
    """What a user has who may do anything that users may."""
    claims = {"sub": user, "exp": int(time.time()) + seconds, "subscribe": ["*"], "publish": ["*"]}
    return jwt(claims)


def trusting(authority, alpn=()):
    """How a client speaks TLS with whom it trusts, and which protocols it offers."""
    context = ssl.create_default_context(cafile=authority)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


class Redis:
    """A redis-server without anything on disk; `port` is none where there is no redis-server."""

    def __init__(self, folder):
        self.port = self.process = None
        binary = shutil.which(os.environ.get("TIDEWIRE_REDIS_SERVER", "redis-server"))
        if binary is None:
            return
        self.port = free_port()
        self.process = subprocess.Popen(
            [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
        raise SystemExit("attacks: Redis does not listen")


class Node:
    """One gateway."""

    def __init__(self, binary, folder, name, redis=None):
        self.name, self.folder = name, folder
        self.port, self.admin = free_port(), free_port()
        #: Whom its clients trust, if it speaks TLS.
        self.authority = folder / "server.pem" if name == "tls" else None
        self.contexts = {}
        path, config = folder / f"{name}.toml", NODES[name][0]
        for file in ("public.pem", "server.pem", "server.key"):
            config = config.replace(f'"{file}"', f'"{folder / file}"')
        path.write_text(config.replace(":6379", f":{redis}"))
        self.log = folder / f"{name}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWIRE_")}
        self.process = subprocess.Popen(
            [binary, "serve", "--config", path, "--listen", f"127.0.0.1:{self.port}",
             "--admin", f"127.0.0.1:{self.admin}"],
            stdout=subprocess.DEVNULL, stderr=open(self.log, "wb"), env=clean)
        for _ in range(200):
            if self.is_well():
                return
            time.sleep(0.05)
        raise SystemExit(f"attacks: a node does not start:\n{self.log.read_text()}")

    def is_well(self):
        """Whether it lives, and says so."""
        if self.process.poll() is not None:
            return False
        try:
            admin = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
            admin.request("GET", "/healthz")
            return admin.getresponse().status == 200
        except OSError:
            return False

    def context(self, alpn=None):
        """How one speaks TLS with it; nothing if it does not."""
        if self.authority and alpn not in self.contexts:
            self.contexts[alpn] = trusting(self.authority, [alpn] if alpn else [])
        return self.contexts.get(alpn)

    def resident(self):
        """Its resident memory in MiB; nothing where it is no more."""
        try:
            pages = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
            return int(pages) * PAGE / 2**20
        except (OSError, IndexError):
            return 0.0


class Memory:
    """The highest resident memory of a node in a stretch of time."""

    def __init__(self, node):
        self.node, self.peak, self.over = node, node.resident(), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self.over.wait(0.05):
            self.peak = max(self.peak, self.node.resident())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class Honest:
    """A backend that publishes 20 messages a second on a stored channel, and a user's WebSocket and
    event stream on it, in a process of their own."""

    EVERY = 0.05
    READERS = 2

    def __init__(self, node):
        self.pipe, theirs = multiprocessing.Pipe()
        self.authority = node.authority
        self.process = multiprocessing.Process(target=self._run, args=(node.port, theirs), daemon=True)
        self.process.start()
        self.pipe.recv()

    def cut(self):
        """What happened since the last cut: messages acknowledged, lost, breaks, latencies in ms."""
        self.pipe.send("cut")
        return self.pipe.recv()

    def _run(self, port, pipe):
        self.port, self.lock = port, threading.Lock()
        self.tls = trusting(self.authority) if self.authority else None
        self.sent, self.seen, self.latencies = {}, {}, []
        self.acked, self.refused, self.breaks = set(), 0, 0
        ready = [threading.Event() for _ in range(self.READERS)]
        for reader, event in zip((self._websocket, self._stream), ready):
            threading.Thread(target=self._read, args=(reader, event), daemon=True).start()
        for event in ready:
            if not event.wait(20):
                raise SystemExit("attacks: the honest client cannot subscribe")
        threading.Thread(target=self._publish, daemon=True).start()
        pipe.send("ready")
        while pipe.recv():
            pipe.send(self._outcome())

    def _outcome(self):
        with self.lock:
            due = set(self.acked)
        patience = time.monotonic() + 10
        while time.monotonic() < patience:
            with self.lock:
                if all(self.seen.get(number, 0) >= self.READERS for number in due):
                    break
            time.sleep(0.02)
        with self.lock:
            lost = sum(self.READERS - self.seen.get(number, 0) for number in due)
            outcome = (len(due), lost, self.refused, self.breaks, sorted(self.latencies))
            self.acked -= due
            self.latencies, self.refused, self.breaks = [], 0, 0
            return outcome

    def _publish(self):
        backend, number = None, 0
        while True:
            began = time.monotonic()
            number += 1
            body = json.dumps({"payload": number, "messageId": f"honest-{os.getpid()}-{number}"})
            with self.lock:
                self.sent[number] = began
            # As every backend should: again with the same id until it is acknowledged.
            for attempt in range(5):
                try:
                    backend = backend or self._backend()
                    backend.request("POST", "/v1/channels/honest/messages", body,
                                    {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
                    answer = backend.getresponse()
                    answer.read()
                    if answer.status == 200:
                        with self.lock:
                            self.acked.add(number)
                        break
                except OSError:
                    backend = None
                except http.client.HTTPException:
                    backend = None
                with self.lock:
                    self.refused += 1
            time.sleep(max(0.0, self.EVERY - (time.monotonic() - began)))

    def _backend(self):
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)

    def _read(self, connect, ready):
        last = None
        while True:
            try:
                for event in connect(last):
                    ready.set()
                    if event:
                        last = event[1] or last
                        self._note(event[0])
            except OSError:
                pass
            with self.lock:
                self.breaks += 1
            time.sleep(0.2)

    def _note(self, number):
        now = time.monotonic()
        with self.lock:
            if number in self.sent:
                self.seen[number] = self.seen.get(number, 0) + 1
                self.latencies.append((now - self.sent[number]) * 1e3)

    def _get(self, path, headers):
        connection = socket.create_connection(("127.0.0.1", self.port), 20)
        if self.tls:
            connection = self.tls.wrap_socket(connection, server_hostname="localhost")
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{head}\r\n".encode())
        source = connection.makefile("rb")
        while source.readline() not in (b"\r\n", b""):
            pass
        return connection, source

    def _websocket(self, last):
        cursor = f"&cursor={last}" if last else ""
        connection, source = self._get(f"/v1/ws?channel=honest{cursor}&token={token('alice')}", UPGRADE)
        while len(head := source.read(2)) == 2:
            length = head[1]
            if length == 126:
                length = int.from_bytes(source.read(2))
            elif length == 127:
                length = int.from_bytes(source.read(8))
            payload = source.read(length)
            if head[0] & 15 == 9:
                connection.sendall(frame(10, payload))
            if head[0] & 15 == 1:
                text = json.loads(payload)
                yield (text["payload"], text.get("cursor")) if text["type"] == "message" else None

    def _stream(self, last):
        again = f"&lastEventId={last}" if last else ""
        _, source = self._get(f"/v1/sse?channel=honest{again}&token={token('alice')}", {})
        identity, event = None, "message"
        for line in source:
            name, _, value = line.decode().strip().partition(": ")
            if name == "id":
                identity = value
            elif name == "event":
                event = value
                yield None
            elif name == "data" and event == "message":
                yield int(value), identity
            elif not name:
                event = "message"


UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
           "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


def frame(opcode, payload=b"", fin=True, masked=True, rsv=0, length=None):
    """A WebSocket frame as a client writes it, or as it must not."""
    length = len(payload) if length is None else length
    out = bytearray([(0x80 if fin else 0) | rsv << 4 | opcode])
    mask = 0x80 if masked else 0
    if length < 126:
        out.append(mask | length)
    elif length < 1 << 16:
        out += bytes([mask | 126]) + length.to_bytes(2)
    else:
        out += bytes([mask | 127]) + length.to_bytes(8)
    if masked:
        key = random.randbytes(4)
        stream = (key * (len(payload) // 4 + 1))[:len(payload)]
        payload = (int.from_bytes(payload) ^ int.from_bytes(stream)).to_bytes(len(payload))
        out += key
    return bytes(out) + payload
