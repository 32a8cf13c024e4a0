#!/usr/bin/env python3
"""Measures good clients beside a thousand connections of slow and abusive ones: benches/abuse.py BINARY [BINARY ...]

For each binary, in turn and twice: a server with an empty folder, 16 good clients that push, read, lock and renew for
some seconds alone, and then beside the abusive ones, which come from other addresses of loopback: slow heads, slow
uploads, slow readers, half-closed connections, pipelined requests, garbage. Prints the rate of the good clients, their
p50 and p99, how many of their requests failed, the peak of the server's memory, and what is in use after the abusive
clients have gone. It uses only the standard library, and is not part of `make bench`.
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
PUSH = "/v1/series?role=leader&source=leader_scrape"


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
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
                writer.write(request("GET", "/v1/series?limit=30000"))
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


async def run(binary: str):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HOLDALL_STORE__PATH": f"{folder}/store",
                       "HOLDALL_SERVER__LISTEN": f"127.0.0.1:{port}"}
        server = subprocess.Popen([binary], env=environment, stderr=subprocess.DEVNULL)
        try:
            while metric(port, "holdall_store_up") != 1:
                await asyncio.sleep(0.1)
            load = Load(port)
            reader, writer = await load.connect(1)
            many = "".join(f'many{{i="{i}",text="{"x" * 100}"}} 1\n' for i in range(30_000))
            writer.write(request("POST", PUSH, many.encode(), "text/plain"))
            await response(reader)
            print(f"{binary}\n  alone   {await load.measure()}")
            tasks = load.abusive()
            await asyncio.sleep(3)
            print(f"  beside  {await load.measure()}")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            load.hang_up()
            await asyncio.sleep(0.1)
            status = open(f"/proc/{server.pid}/status").read()
            peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024
            deadline = time.monotonic() + 60
            # The scrape that asks is one itself. Servers before these metrics of permits have none in use.
            others = lambda name: max(metric(port, name) - 1, 0)
            in_use = lambda: (others("holdall_http_requests_in_flight"), others("holdall_http_permits_in_use"))
            while any(in_use()) and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
            in_flight, permits = in_use()
            print(f"  peak {peak} MiB; afterwards {in_flight:.0f} requests in flight, {permits:.0f} permits in use")
        finally:
            server.terminate()
            server.wait()


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for _ in range(2):
        for binary in sys.argv[1:]:
            asyncio.run(run(binary))


if __name__ == "__main__":
    main()
