#!/usr/bin/env python3
"""What expensive work costs everybody else: scans with regular expressions over a million series, slow readers of
lists, event streams that are not read, a deletion of all series, and the expiry of all of them at one moment. Prints
the slowest calls of other clients meanwhile, and the memory.

python3 benches/scans.py BINARY [SERIES]
"""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

SCANS = 24
EXPRESSIONS = 15
SLOW_READERS = 1030
STREAMS = [100, 900]
SECONDS = 15
RETENTION_S = 24 * 3600


def main():
    binary = sys.argv[1]
    series = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, HOLDALL_STORE__PATH=f"{folder}/store", HOLDALL_SERVER__LISTEN="127.0.0.1:0",
                           HOLDALL_STORE__SYNC="normal", HOLDALL_LOG__FORMAT="json", HOLDALL_LOG__LEVEL="info")
        server = subprocess.Popen([binary], env=environment, stderr=subprocess.PIPE, text=True)
        try:
            measure(server, port_of(server), series)
        finally:
            server.terminate()
            server.wait()


def port_of(server):
    for line in server.stderr:
        found = [word for word in json.loads(line).get("fields", {}).values() if "127.0.0.1:" in str(word)]
        if found:
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return int(str(found[0]).rsplit(":", 1)[1].strip("/"))
    raise SystemExit("the server did not start")


def measure(server, port, series):
    fill(port, series)
    others("nothing else", port)
    memory = resident(server)
    stop = threading.Event()
    path = "/v1/series?limit=1&match[]=" + urllib.parse.quote(selector())
    scans = [threading.Thread(target=scan, args=(port, path, stop), daemon=True) for _ in range(SCANS)]
    [thread.start() for thread in scans]
    time.sleep(1)
    others(f"{SCANS} scans of {EXPRESSIONS} expressions", port)
    stop.set()
    [thread.join() for thread in scans]
    print(f"memory after the scans: {(resident(server) - memory) >> 20} MiB more")
    for encoding in ["identity", "gzip", "zstd"]:
        held(server, port, f"{SLOW_READERS} slow readers of a list ({encoding})", SLOW_READERS,
             "/v1/series?limit=30000", encoding)
    cursor = ask(port, "GET", "/v1/series/cursor")[1]["cursor"].split("-")[0] + "-0"
    for count in STREAMS:
        held(server, port, f"{count} streams that are not read", count,
             f"/v1/series/stream?limit=100000&cursor={cursor}", "identity")
    deletion = threading.Thread(target=delete_all, args=(port,))
    deletion.start()
    others("deletion of all series", port)
    deletion.join()
    expires_at = time.time() + 45
    fill(port, series, f" {int((expires_at - RETENTION_S) * 1000)}")
    print(f"pushed {expires_at - time.time():.0f} s before they expire", flush=True)
    time.sleep(max(0, expires_at - time.time() - 2))
    others("expiry of all series", port)


def delete_all(port):
    start = time.monotonic()
    status, outcome = ask(port, "POST", "/v1/series/delete", {"match": ['{__name__=~"http_.+"}']})
    print(f"deletion: {status} {outcome}, {time.monotonic() - start:.1f} s", flush=True)


def held(server, port, what, count, path, encoding):
    """Sends requests and does not read the responses."""
    memory = resident(server)
    connections = []
    for number in range(count):
        connection = socket.socket()
        # Several clients, and none of them the one whose calls are timed: each has a share.
        connection.bind((f"127.0.0.{2 + number % 4}", 0))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\naccept-encoding: {encoding}\r\n\r\n".encode())
        connections.append(connection)
    others(what, port)
    print(f"memory: {(resident(server) - memory) >> 20} MiB more")
    [connection.close() for connection in connections]
    time.sleep(1)


def selector():
    """A selector whose expressions match everything, but for the last one, which matches nothing."""
    some = [f'path=~"/v[0-9]+.*|x{n}"' for n in range(EXPRESSIONS - 2)]
    return "{" + ",".join(['__name__=~"http_.+"'] + some + ['instance=~".*nothing.*"']) + "}"


def fill(port, series, stamp=""):
    while ask(port, "GET", "/readyz")[0] != 200:
        time.sleep(0.05)
    for start in range(0, series, 100_000):
        lines = [f'http_requests_{n // 10_000:03}_total{{instance="host-{n % 10_000:05}",job="api",path="/v1"}} 1{stamp}'
                 for n in range(start, min(start + 100_000, series))]
        status, _ = ask(port, "POST", "/v1/series?role=leader&source=leader_scrape", "\n".join(lines) + "\n",
                        "text/plain")
        assert status == 200, status


def scan(port, path, stop):
    while not stop.is_set():
        try:
            ask(port, "GET", path)
        except OSError:
            pass


def others(what, port):
    """Calls what other clients need, and prints how long the calls took."""
    body = {"holder": "bench", "ttl": "10m"}
    # A name of its own for each load: what an earlier one acquired is still held.
    name = re.sub("[^a-z0-9]+", "-", what.lower())
    lease = f"/v1/leases/bench-{name}"
    token = ask(port, "POST", f"{lease}/acquire", body)[1]["fencing_token"]
    push = {"role": "leader", "source": "leader_scrape", "points": [{"name": "one", "value": 1}]}
    calls = {
        "livez": lambda n: ask(port, "GET", "/livez"),
        "lock": lambda n: ask(port, "POST", f"/v1/locks/job/{name}-{n}", {"ttl": "1h"}),
        "renew": lambda n: ask(port, "POST", f"{lease}/renew", {"fencing_token": token}),
        "push of one": lambda n: ask(port, "POST", "/v1/series", push),
        "named selector": lambda n: ask(port, "GET", "/v1/series?match[]=one"),
    }
    threads = [threading.Thread(target=time_calls, args=(what, name, call)) for name, call in calls.items()]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]


def time_calls(what, name, call):
    times, refused = [], 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        start = time.monotonic()
        status, _ = call(len(times))
        times.append(time.monotonic() - start)
        refused += status != 200
        time.sleep(0.02)
    times.sort()
    half, most = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    print(f"{what}: {name}: {len(times)} calls, {refused} refused, median {half * 1000:.1f} ms, p99 {most * 1000:.1f} ms, "
          f"slowest {times[-1] * 1000:.1f} ms", flush=True)


def ask(port, method, path, body=None, media="application/json"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    if body is not None and media == "application/json":
        body = json.dumps(body)
    connection.request(method, path, body, {} if body is None else {"content-type": media})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text else None


def resident(server):
    with open(f"/proc/{server.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


if __name__ == "__main__":
    main()
