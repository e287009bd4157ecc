"""A bad network on purpose: an HTTP proxy in front of a server that spoils some of the requests.

It knows requests apart on kept connections and passes bytes on unchanged (the client signs the
proxy's own address, and servers check the signature over the Host header that arrives). What it
does is drawn from its seed and counted by kind; what happens in which order depends on threads.
"""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

from services.processes import HOST

KINDS = ("reset", "lose", "cut", "truncate", "delay", "busy")
"""reset: before the server sees the request. lose: the server did it, not a byte of the answer comes.
cut: reset within the answer. truncate: the answer ends early. delay. busy: 503 SlowDown."""

_PIECE = 1 << 16
_BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"


class Message(NamedTuple):
    """Head of a request or an answer."""

    raw: bytes
    start: list[str]
    headers: dict[str, str]

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))


class BrokenConnectionError(Exception):
    """The fault is done, or somebody hung up."""


class FaultProxy:
    """Stands before the server at `upstream`; its own address is `url`.

    `share` of the requests are spoilt (evenly by one of `kinds`); `alter` of the requests with a
    body have one bit of it turned over. All may be set at any time.
    """

    def __init__(
        self,
        upstream: str,
        share: float = 0.0,
        seed: int = 0,
        alter: float = 0.0,
        kinds: tuple[str, ...] = KINDS,
    ) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or HOST, parts.port or 80)
        self.share, self.alter, self.kinds, self.delay = share, alter, kinds, 0.2
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._dark_until = 0.0
        self._live: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def outage(self, seconds: float) -> None:
        """From now on, for so long, every connection is reset; returns at once."""
        with self._lock:
            self._dark_until = time.monotonic() + seconds
            live = list(self._live)
        for connection in live:
            with suppress(OSError):  # its own thread resets it
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the service and all its connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.outage(3600)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._live.add(client)
        try:
            if self._is_dark():
                raise BrokenConnectionError
            with socket.create_connection(self._upstream) as server:
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with client.makefile("rb") as asked, server.makefile("rb") as answered:
                    while self._exchange(client, asked, server, answered):
                        pass
        except (BrokenConnectionError, OSError, ValueError):
            reset(client)
        finally:
            with self._lock:
                self._live.discard(client)
            with suppress(OSError):
                client.close()

    def _is_dark(self) -> bool:
        if time.monotonic() >= self._dark_until:
            return False
        with self._lock:
            self.counts["outage"] += 1
        return True

    def _draw(self, has_body: bool) -> tuple[str, bool]:
        """The fault of one request ("" for none), and whether its body is altered."""
        with self._lock:
            self.counts["requests"] += 1
            fault = self._random.choice(self.kinds) if self._random.random() < self.share else ""
            altered = has_body and self._random.random() < self.alter
            self.counts.update([fault] * bool(fault) + ["alter"] * altered)
            return fault, altered

    def _exchange(
        self, client: socket.socket, asked: BinaryIO, server: socket.socket, answered: BinaryIO
    ) -> bool:
        """One request and its answer; whether the connection goes on."""
        request = read_head(asked)
        if request is None:
            return False
        fault, altered = self._draw(request.length > 0)
        if fault == "reset" or self._is_dark():
            raise BrokenConnectionError
        if fault == "delay":
            time.sleep(self.delay)
        if fault == "busy":
            return refuse(client, asked, request)
        server.sendall(request.raw)
        answer = None
        if "100-continue" in request.headers.get("expect", "").lower():
            answer = read_head(answered)
            if answer is not None and answer.start[1] == "100":
                client.sendall(answer.raw)
                answer = None
        if answer is None:
            self._pass_request(asked, server, request.length, altered)
            answer = read_head(answered)
        if answer is None or fault == "lose":
            raise BrokenConnectionError
        has_body = request.start[0] != "HEAD" and answer.start[1] not in ("204", "304")
        pieces = body(answered, answer) if has_body else iter(())
        if fault in ("cut", "truncate"):
            with self._lock:
                place = self._random.uniform(-1, 1)
            return spoil(client, answer, pieces, fault, place)
        client.sendall(answer.raw)
        for piece in pieces:
            client.sendall(piece)
        return answer.headers.get("connection", "").lower() != "close"

    @staticmethod
    def _pass_request(asked: BinaryIO, server: socket.socket, length: int, altered: bool) -> None:
        for number, piece in enumerate(exactly(asked, length)):
            if altered and number == 0:
                middle = len(piece) // 2
                piece = piece[:middle] + bytes([piece[middle] ^ 1]) + piece[middle + 1 :]
            server.sendall(piece)


def read_head(source: BinaryIO) -> Message | None:
    """The next head; None when the other side hung up."""
    lines = []
    while (line := source.readline()) not in (b"\r\n", b""):
        lines.append(line)
    if not lines or not line:
        return None
    fields = [text.decode("latin-1").partition(":") for text in lines[1:]]
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    return Message(b"".join([*lines, line]), lines[0].decode("latin-1").split(), headers)


def exactly(source: BinaryIO, length: int) -> Iterator[bytes]:
    """`length` bytes in pieces."""
    while length:
        piece = source.read(min(length, _PIECE))
        if not piece:
            raise BrokenConnectionError
        length -= len(piece)
        yield piece


def body(source: BinaryIO, answer: Message) -> Iterator[bytes]:
    """The body of an answer as it came, chunk marks included."""
    if answer.headers.get("transfer-encoding", "").lower() == "chunked":
        size = -1
        while size:
            line = source.readline()
            size = int(line.partition(b";")[0], 16)
            yield line
            yield from exactly(source, size + 2)
    elif "content-length" in answer.headers:
        yield from exactly(source, answer.length)
    else:
        while piece := source.read(_PIECE):
            yield piece
        raise BrokenConnectionError


def refuse(client: socket.socket, asked: BinaryIO, request: Message) -> bool:
    """Answer 503 in the server's stead."""
    if "expect" not in request.headers:
        for _ in exactly(asked, request.length):
            pass
    head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(_BUSY)}\r\nConnection: close\r\n\r\n"
    client.sendall(head.encode() + (_BUSY if request.start[0] != "HEAD" else b""))
    client.shutdown(socket.SHUT_WR)
    return False


def spoil(
    client: socket.socket, answer: Message, pieces: Iterator[bytes], fault: str, place: float
) -> bool:
    """Send a part of the answer, then reset the connection or close it as if all were done.

    It ends at the share `place` of the body's first piece, or, below zero, at that of the head.
    """
    first = next(pieces, b"")
    if place < 0 or not first:
        client.sendall(answer.raw[: int(abs(place) * len(answer.raw))])
    else:
        client.sendall(answer.raw + first[: int(place * len(first))])
    if fault == "cut":
        raise BrokenConnectionError
    client.shutdown(socket.SHUT_WR)
    return False


def reset(connection: socket.socket) -> None:
    """Close with RST, so that the other side sees an error and not an end."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


Faulty = Callable[..., FaultProxy]
"""`faulty_s3(share=0.05, seed=0, ...)`: a proxy, with this process's environment pointing at it."""
