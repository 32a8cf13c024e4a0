"""Takes the times: curl for single large requests, wrk and h2load for many small ones.

Nothing here knows a server; the clients are C programs, so that the client is not what is measured.
"""

import json
import re
import statistics
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from processes import Failed, program
from table import Measured

SCRIPTS = Path(__file__).parent


def curl(url: str, *options: str, status: str = "2") -> tuple[float, int]:
    """One request; returns its seconds and the bytes received. Another status is a failure."""
    done = subprocess.run(
        [program("curl", "curl"), "-sS", "-o", "/dev/null", "-H", "Expect:", *options]
        + ["-w", "%{http_code} %{time_total} %{size_download}", url],
        capture_output=True,
        text=True,
        check=False,
    )
    fields = done.stdout.split()
    if done.returncode != 0 or not fields or not fields[0].startswith(status):
        raise Failed(f"{url} responded {done.stdout!r} {done.stderr!r}")
    return float(fields[1]), int(fields[2])


def push(url: str, file: Path, status: str = "2") -> float:
    """Seconds that a push of the file takes, from connecting to the response."""
    body = ("--data-binary", f"@{file}", "-H", "Content-Type: text/plain; version=0.0.4")
    return curl(url, *body, status=status)[0]


def interleaved(rounds: int, *measured):
    """Calls each of `measured` in turn, `rounds` times over, and returns the medians in their order.

    What is measured is a function, or for holdall a list of them: one for each binary in a comparison.
    For a list the result is a `Measured`. Interleaving keeps a slow moment of the machine from falling
    on one of them alone. A server goes on working after a push (it refreshes and flushes), which slows the
    next one down: so the binaries of a comparison change places in every round, and no function is ever
    called twice in a row. An even number of rounds gives each binary each place equally often.
    """
    results = [[[] for _ in listed(entry)] for entry in measured]
    for turn in range(rounds):
        for entry, result in zip(measured, results):
            pairs = list(zip(listed(entry), result))
            for function, values in pairs if turn % 2 == 0 else reversed(pairs):
                values.append(function(turn))
    return [
        Measured(*result) if isinstance(entry, list) else statistics.median(result[0])
        for entry, result in zip(measured, results)
    ]


def listed(entry) -> list:
    """The functions of an entry of `interleaved`."""
    return entry if isinstance(entry, list) else [entry]


def wrk(
    url: str,
    script: str | None = None,
    connections: int = 32,
    seconds: float = 4,
    arguments: Sequence[str] = (),
    missing: bool = False,
) -> tuple[float, float]:
    """Many small requests; returns requests a second and the 99th percentile in seconds.

    Every request must succeed; with `missing` every one must be refused, as what is not there is.
    """
    command = [program("wrk", "wrk"), f"-t{min(2, connections)}", f"-c{connections}"]
    command += [f"-d{seconds:g}s", "--latency"]
    command += ["-s", str(SCRIPTS / script)] if script else []
    command += [url] + (["--", *arguments] if arguments else [])
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    expected = re.search(r"(\d+) requests in", out)[1] if missing else "0"
    if (refused[1] if refused else "0") != expected or "Socket errors" in out or "unexpected" in out:
        raise Failed(f"{url} did not take every request:\n{out}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()
    return rate, float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def etcd_puts(port: int, folder: Path, connections: int = 32, seconds: float = 4) -> float:
    """Puts a second over gRPC, etcd's own protocol, without its JSON gateway."""
    message = b"\x0a\x05bench\x12\x20" + b"v" * 32  # PutRequest {key: "bench", value: 32 bytes}
    body = folder / "put.grpc"
    body.write_bytes(b"\x00" + len(message).to_bytes(4, "big") + message)
    command = [program("h2load", "nghttp2-client"), f"-c{connections}", "-m1", "-t1"]
    command += [f"-D{seconds:g}", "-d", str(body), "-H", "te: trailers"]
    command += ["-H", "content-type: application/grpc"]
    command += [f"http://127.0.0.1:{port}/etcdserverpb.KV/Put"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done = re.search(r"finished in .*?, ([\d.]+) req/s", out)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
    if not done or not codes or any(int(code) for code in codes.groups()[1:]):
        raise Failed(f"etcd did not take every put:\n{out}")
    # An error of gRPC has the status 200 as well, so the puts are counted where they arrived.
    if etcd_version(port) < int(codes[1]):
        raise Failed(f"etcd holds fewer puts than it acknowledged:\n{out}")
    return float(done[1])


def etcd_version(port: int) -> int:
    """How often the key of `etcd_puts` was put."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v3/kv/range", data=json.dumps({"key": "YmVuY2g="}).encode()
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return int(json.load(response)["kvs"][0]["version"])
