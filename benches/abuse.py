#!/usr/bin/env python3
"""Measures good clients beside a thousand connections of slow and abusive ones: benches/abuse.py BINARY [BINARY ...]

For each binary, in turn and twice: a server with an empty folder, 16 good clients that push, read, lock and renew for
some seconds alone, and then beside the abusive ones, which come from other addresses of loopback: slow heads, slow
uploads, slow readers, half-closed connections, pipelined requests, garbage. Prints the rate of the good clients, their
p50 and p99, how many of their requests failed, the peak of the server's memory, and what is in use after the abusive
clients have gone. Then, for each coding, a server with 1,030 clients that do not read a response of 30,000 series: the
memory that they take, and how long one client takes to read it whole, with a server of its own. It uses only the
standard library, and is not part of `make bench`.
"""

import asyncio
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

GOOD = 16
SECONDS = 8.0
SLOW_UPLOADS = 1030
SLOW_READERS = 1030
CODINGS = ["identity", "gzip", "zstd", "gzip, zstd"]
LIST = "/v1/series?limit=30000"
PUSH = "/v1/series?role=leader&source=leader_scrape"


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json", more: str = "") -> bytes:
    length = f"Content-Length: {len(body)}\r\n{more}\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{length}"
    return head.encode() + body


async def response(reader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return int(head[9:12]), await reader.readexactly(int(length[1])) if length else b""


class Load:
    """The clients of one server."""

    def __init__(self, port: int):
        self.port = port
        self.times: list[float] = []
        self.failed = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def connect(self, host: int):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(f"127.0.0.{host}", 0)
        )
        self.writers = {open for open in self.writers if not open.is_closing()} | {writer}
        return reader, writer

    def hang_up(self):
        for writer in self.writers:
            writer.transport.abort()

    async def good(self, number: int, until: float):
        reader, writer = await self.connect(1)

        async def ask(*parts) -> bytes:
            started = time.monotonic()
            writer.write(request(*parts))
            status, body = await response(reader)
            self.times.append(time.monotonic() - started)
            self.failed += status >= 400
            return body

        # A name of its own for each measurement: what an earlier one acquired is still held.
        lease = f"/v1/leases/good-{number}-{until}"
        grant = json.loads(await ask("POST", f"{lease}/acquire", b'{"holder": "me", "ttl": "1h"}'))
        token = json.dumps({"fencing_token": grant.get("fencing_token", 1)}).encode()
        turn = 0
        while time.monotonic() < until:
            turn += 1
            await ask("POST", f"{lease}/renew", token)
            await ask("POST", PUSH, f"good_{number} {turn}\n".encode(), "text/plain")
            await ask("GET", f"/v1/series?match[]=good_{number}")
            await ask("POST", f"/v1/locks/job/{number}-{turn}", b'{"ttl": "1m"}')
        writer.close()

    async def measure(self) -> str:
        self.times, self.failed = [], 0
        until = time.monotonic() + SECONDS
        ended = await asyncio.gather(*(self.good(n, until) for n in range(GOOD)), return_exceptions=True)
        broken = sum(isinstance(end, Exception) for end in ended)
        times = sorted(self.times)
        at = lambda part: 1000 * times[min(len(times) - 1, int(len(times) * part))]
        failed = 100 * self.failed / len(times)
        return (f"{len(times) / SECONDS:7.0f}/s  p50 {at(0.5):6.1f} ms  p99 {at(0.99):7.1f} ms  "
                f"failed {failed:5.1f} %  broken {broken}")

    async def drip(self, host: int, begin: bytes, more: bytes):
        """Sends a little each five seconds, until the server has enough of it; then does so again."""
        while True:
            try:
                reader, writer = await self.connect(host)
                writer.write(begin)
                while True:
                    try:
                        if not await asyncio.wait_for(reader.read(1024), 5):
                            break
                    except asyncio.TimeoutError:
                        writer.write(more)
                writer.close()
            except OSError:
                pass
            await asyncio.sleep(1)

    async def slow_reader(self):
        while True:
            try:
                reader, writer = await self.connect(4)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                writer.write(request("GET", LIST))
                while await reader.read(100):
                    writer.transport.pause_reading()
                    await asyncio.sleep(5)
                    writer.transport.resume_reading()
            except (OSError, RuntimeError):
                pass
            await asyncio.sleep(1)

    async def repeat(self, host: int, sent: bytes, half_close: bool):
        while True:
            try:
                reader, writer = await self.connect(host)
                writer.write(sent)
                if half_close:
                    writer.write_eof()
                await asyncio.wait_for(reader.read(), 10)
                writer.close()
            except (OSError, asyncio.TimeoutError):
                pass
            await asyncio.sleep(1)

    def abusive(self) -> list:
        upload = b"POST " + PUSH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 99999\r\n\r\n#"
        tasks = [self.drip(2, upload, b"#") for _ in range(SLOW_UPLOADS)]
        tasks += [self.drip(3, b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"x: y\r\n") for _ in range(150)]
        tasks += [self.slow_reader() for _ in range(100)]
        tasks += [self.repeat(5, request("GET", "/v1/series?limit=1"), True) for _ in range(50)]
        tasks += [self.repeat(6, request("GET", "/livez") * 200, True) for _ in range(20)]
        tasks += [self.repeat(7, b"\x16\x03\x01\0\0" * 100, False) for _ in range(50)]
        return [asyncio.ensure_future(task) for task in tasks]


def metric(port: int, name: str) -> float:
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    except OSError:
        return float("nan")
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))


class Server:
    """A server with 30,000 series in an empty folder of its own."""

    def __init__(self, binary: str):
        self.binary = binary

    async def __aenter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory()
        environment = {**os.environ, "HOLDALL_STORE__PATH": f"{self.folder.name}/store",
                       "HOLDALL_SERVER__LISTEN": f"127.0.0.1:{self.port}"}
        self.process = subprocess.Popen([self.binary], env=environment, stderr=subprocess.DEVNULL)
        while metric(self.port, "holdall_store_up") != 1:
            await asyncio.sleep(0.1)
        self.load = Load(self.port)
        reader, writer = await self.load.connect(1)
        many = "".join(f'many{{i="{i}",text="{"x" * 100}"}} 1\n' for i in range(30_000))
        writer.write(request("POST", PUSH, many.encode(), "text/plain"))
        await response(reader)
        return self

    async def __aexit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def memory(self, field: str) -> int:
        """In MiB."""
        status = open(f"/proc/{self.process.pid}/status").read()
        return int(re.search(rf"{field}:\s+(\d+)", status)[1]) // 1024


async def run(binary: str):
    async with Server(binary) as server:
        load, port = server.load, server.port
        print(f"{binary}\n  alone   {await load.measure()}")
        tasks = load.abusive()
        await asyncio.sleep(3)
        print(f"  beside  {await load.measure()}")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        load.hang_up()
        await asyncio.sleep(0.1)
        deadline = time.monotonic() + 60
        # The scrape that asks is one itself. Servers before these metrics of permits have none in use.
        others = lambda name: max(metric(port, name) - 1, 0)
        in_use = lambda: (others("holdall_http_requests_in_flight"), others("holdall_http_permits_in_use"))
        while any(in_use()) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        in_flight, permits = in_use()
        peak = server.memory("VmHWM")
        print(f"  peak {peak} MiB; afterwards {in_flight:.0f} requests in flight, {permits:.0f} permits in use")


async def whole(port: int, coding: str) -> tuple[float, int]:
    """Reads the list; returns the time, and how many bytes came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    started = time.monotonic()
    writer.write(request("GET", LIST, more=f"Accept-Encoding: {coding}\r\nConnection: close\r\n"))
    size = 0
    while data := await reader.read(1 << 20):
        size += len(data)
    writer.close()
    return time.monotonic() - started, size


async def slow_readers(binary: str, coding: str):
    async with Server(binary) as server:
        reads = [await whole(server.port, coding) for _ in range(15)]
        best = min(seconds for seconds, _ in reads)
        before = server.memory("VmRSS")
        for number in range(SLOW_READERS):
            reader, writer = await server.load.connect(10 + number % 8)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.write(request("GET", LIST, more=f"Accept-Encoding: {coding}\r\n"))
            writer.transport.pause_reading()
            if number % 64 == 0:
                await asyncio.sleep(0.01)
        # Long enough for the server to send what the clients' windows take.
        await asyncio.sleep(5)
        served = metric(server.port, "holdall_http_permits_in_use")
        more = server.memory("VmRSS") - before
        print(f"  {SLOW_READERS} slow readers, {coding:10}: +{more:4} MiB, {served:.0f} permits in use; "
              f"one reads {reads[0][1] / 1e6:.2f} MB in {1000 * best:.1f} ms")
        server.load.hang_up()


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for _ in range(2):
        for binary in sys.argv[1:]:
            asyncio.run(run(binary))
    for binary in sys.argv[1:]:
        print(binary)
        for coding in CODINGS:
            asyncio.run(slow_readers(binary, coding))


if __name__ == "__main__":
    main()
