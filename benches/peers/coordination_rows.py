"""Locks, checkpoints and renewals of leases over HTTP, beside Webdis and etcd."""

import json
import time
import urllib.request
from pathlib import Path

from measure import etcd_puts, interleaved, wrk
from processes import Server
from servers import Fleet
from table import Row, rate

LEASES = 32


def coordination(fleet: Fleet, folder: Path, rounds: int):
    """The three kinds of small durable writes, with both settings of `sync`."""
    for sync, peer_name, target in (("normal", "Webdis INCR", 1.2), ("full", "etcd put", 1.0)):
        ours = fleet.holdall(sync)
        leases = {server: acquire_leases(server, folder) for server in ours}
        if sync == "normal":
            peer = fleet.webdis()
            peer_rate = lambda _turn, url=peer.url("/INCR/bench"): wrk(url)[0]
        else:
            peer = fleet.etcd()
            # Both respond with JSON over HTTP; a row below shows etcd's own protocol.
            peer_rate = lambda _turn, url=peer.url("/v3/kv/put"): wrk(url, "etcd_put.lua")[0]
        works = {
            "lock": ("lock.lua", lambda _server, turn: [f"{sync}-{turn}-{time.monotonic_ns()}"]),
            "checkpoint": ("checkpoint.lua", lambda _server, _turn: []),
            "lease renewal": ("renew.lua", lambda server, _turn: [str(leases[server])]),
        }

        def rates(work, connections=32):
            script, arguments = works[work]
            measure = lambda server: lambda turn: wrk(
                server.url("/"), script, connections, arguments=arguments(server, turn)
            )[0]
            return [measure(server) for server in ours]

        *mine, theirs = interleaved(rounds, *map(rates, works), peer_rate)
        for work, one in zip(works, mine):
            work = f"{work}, 32 connections, sync = {sync}"
            yield Row(work, one, rate, peer_name, theirs, more_is_better=True, target=target)
        if sync == "full":
            grpc_rate = lambda _turn, port=peer.port: etcd_puts(port, folder)
            few, many, grpc = interleaved(
                rounds, rates("checkpoint"), rates("checkpoint", connections=128), grpc_rate
            )
            work = "checkpoint, 32 connections, sync = full"
            yield Row(work, few, rate, "etcd put over gRPC", grpc, more_is_better=True)
            work = "checkpoint, 128 connections, sync = full"
            yield Row(work, many, rate, "32 connections", few.now, more_is_better=True, target=1)
        fleet.stop_all()


def acquire_leases(holdall: Server, folder: Path) -> Path:
    """Takes leases and writes their names and tokens where renew.lua reads them."""
    lines = []
    for number in range(LEASES):
        request = urllib.request.Request(
            holdall.url(f"/v1/leases/bench-{number}/acquire"),
            data=json.dumps({"holder": "bench", "ttl": "10m"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            lines.append(f"bench-{number} {json.load(response)['fencing_token']}\n")
    file = folder / f"leases-{holdall.port}"
    file.write_text("".join(lines))
    return file
