"""A TCP proxy with a true-to-life round trip, faults, and counters; no root needed.

    delayproxy.py --control SOCKET --rtt MS --map LISTEN:PORT=TARGET:PORT ...

Every byte arrives RTT/2 after it was sent.  What the handshake costs is imitated too: the target is
connected 1.5 RTT after the client's connect(), and nothing the client sent counts as sent before
1 RTT.  (What is not imitated: congestion windows.)  One line on the control socket is one command,
one line comes back:
  <number>   new RTT in ms           drop       reset every connection (RST)
  blackhole  deliver nothing more    heal       deliver again, listen again
  refuse     stop listening          stats / zero-stats
stats: connections, bytes each way, and turns: how often the direction changed from down to up, i.e.
how many times the client waited for an answer before it said more; connections*2 + turns is close
to the number of round trips paid.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import re
import socket
import struct
from pathlib import Path
from typing import ClassVar

Address = tuple[str, int]
HIGH, LOW = 4 << 20, 1 << 20  # bytes under way at which reading pauses and goes on


class State:
    rtt = 0.0
    hole = False
    pairs: ClassVar[set["Pair"]] = set()
    stats: ClassVar[collections.Counter[str]] = collections.Counter()


def reset_stats() -> None:
    State.stats = collections.Counter(connections=0, up=0, down=0, turns=0)


class End(asyncio.Protocol):
    """One end of a connection; what it reads is handed to the other end RTT/2 later, in order."""

    def __init__(self, pair: "Pair", name: str) -> None:
        self.pair, self.name = pair, name
        self.queue: collections.deque[tuple[float, bytes]] = collections.deque()
        self.timer: asyncio.TimerHandle | None = None
        self.size = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.name == "client":
            self.pair.accepted()
        else:
            self.pair.connected()

    def data_received(self, data: bytes) -> None:
        self.pair.count(self.name, len(data))
        self.push(data)

    def eof_received(self) -> bool:
        self.push(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or not self.queue or self.queue[-1][1] != b"":
            self.push(b"")
        self.pair.lost()

    def gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def push(self, data: bytes) -> None:
        now = self.pair.loop.time()
        sent = max(now, self.pair.established) if self.name == "client" else now
        self.queue.append((sent + State.rtt / 2, data))
        self.size += len(data)
        if self.size > HIGH and self.transport:
            self.transport.pause_reading()
        self.arm()

    def arm(self) -> None:
        if self.timer is None and self.queue and not State.hole and self.pair.ready:
            self.timer = self.pair.loop.call_at(self.queue[0][0] - 0.0004, self.deliver)

    def deliver(self) -> None:
        self.timer = None
        other = self.pair.other(self)
        now = self.pair.loop.time() + 0.0005
        while self.queue and self.queue[0][0] <= now and not State.hole:
            data = self.queue.popleft()[1]
            self.size -= len(data)
            if other.transport is None or other.transport.is_closing():
                continue
            if data:
                other.transport.write(data)
            elif other.transport.can_write_eof():
                with contextlib.suppress(OSError):  # the peer has reset the connection meanwhile
                    other.transport.write_eof()
                self.pair.half_closed(self)
        if self.size < LOW and self.transport and not self.transport.is_closing():
            self.transport.resume_reading()
        self.arm()


class Pair:
    def __init__(self, loop: asyncio.AbstractEventLoop, target: Address) -> None:
        self.loop, self.target = loop, target
        self.ready = False
        self.established = 0.0
        self.last = ""
        self.closed: set[str] = set()
        self.client, self.server = End(self, "client"), End(self, "server")
        self.dialling: asyncio.Task[object] | None = None

    def other(self, end: End) -> End:
        return self.server if end is self.client else self.client

    def accepted(self) -> None:
        State.pairs.add(self)
        State.stats["connections"] += 1
        self.established = self.loop.time() + State.rtt
        self.loop.call_later(1.5 * State.rtt, self.dial)

    def dial(self) -> None:
        if State.hole:
            return
        connecting = self.loop.create_connection(lambda: self.server, *self.target)
        self.dialling = self.loop.create_task(connecting)
        self.dialling.add_done_callback(lambda task: self.abort() if task.exception() else None)

    def connected(self) -> None:
        self.ready = True
        self.client.arm()

    def count(self, name: str, size: int) -> None:
        State.stats["up" if name == "client" else "down"] += size
        if name == "client" and self.last == "server":
            State.stats["turns"] += 1
        self.last = name

    def half_closed(self, end: End) -> None:
        self.closed.add(end.name)
        if len(self.closed) == 2:
            for e in (self.client, self.server):
                if e.transport:
                    e.transport.close()
            State.pairs.discard(self)

    def lost(self) -> None:
        if not self.ready or (self.client.gone() and self.server.gone()):
            State.pairs.discard(self)

    def abort(self) -> None:
        for e in (self.client, self.server):
            if e.transport:
                sock = e.transport.get_extra_info("socket")
                with contextlib.suppress(OSError):  # this end is closed already, the other is not
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                e.transport.abort()
        State.pairs.discard(self)


def address(text: str) -> Address:
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Proxy:
    def __init__(self, maps: list[str]) -> None:
        self.maps = [(address(m.split("=")[0]), address(m.split("=")[1])) for m in maps]
        self.servers: list[asyncio.Server] = []

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for (host, port), target in self.maps:

            def pair(target: Address = target) -> End:
                return Pair(loop, target).client

            self.servers.append(await loop.create_server(pair, host, port, reuse_address=True))

    async def command(self, word: str) -> str:
        if re.fullmatch(r"\d+(\.\d*)?", word):
            State.rtt = float(word) / 1000
        elif word == "drop":
            for p in list(State.pairs):
                p.abort()
        elif word == "blackhole":
            State.hole = True
        elif word == "heal":
            State.hole = False
            if not self.servers:
                await self.listen()
            for p in list(State.pairs):
                p.client.arm()
                p.server.arm()
        elif word == "refuse":
            while self.servers:
                self.servers.pop().close()
        elif word == "stats":
            return json.dumps(dict(State.stats, rtt_ms=State.rtt * 1000, open=len(State.pairs)))
        elif word == "zero-stats":
            reset_stats()
        else:
            return f"error: unknown command {word}"
        return "ok"

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = (await reader.readline()).decode().strip()
        writer.write((await self.command(word)).encode() + b"\n")
        await writer.drain()
        writer.close()


async def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--control", required=True, type=Path)
    ap.add_argument("--rtt", type=float, default=0)
    ap.add_argument("--map", action="append", default=[])
    a = ap.parse_args()
    State.rtt = a.rtt / 1000
    reset_stats()
    proxy = Proxy(a.map)
    await proxy.listen()
    a.control.unlink(missing_ok=True)
    await asyncio.start_unix_server(proxy.control, a.control)
    await asyncio.get_running_loop().create_future()  # until killed


if __name__ == "__main__":
    asyncio.run(main())
