"""Generations and the cache over HTTP, beside Webdis and etcd.

Both sides get the same kind of requests from the same script, over 1,000 keys, and what they read is
checked before it is measured. Webdis responds to GET with the bare bytes, as holdall does.
"""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from measure import interleaved, wrk
from processes import Failed, Server
from servers import Fleet
from table import Row, rate

KEYS = 1_000
SNAPSHOT_KEYS = 100
# Where generations are read in a batch: a comparison may measure a binary that has the second path.
BATCH_SNAPSHOT = ("/v1/batch/generations/snapshot", "/v1/generations/snapshot")
VALUES = {"100 B": 100, "10 KiB": 10_240}
JSON = "application/json"
BYTES = "application/octet-stream"


@dataclass
class Load:
    """Requests that wrk sends to one server in turn, all with the same body."""

    server: Server
    requests: list[str]
    body: bytes | None = None
    content_type: str = BYTES
    missing: bool = False

    def rate(self, folder: Path, name: str):
        """Returns what `interleaved` calls; it returns requests a second."""
        listed = folder / f"{name}-{self.server.name}-{self.server.port}.requests"
        listed.write_text("".join(f"{request}\n" for request in self.requests))
        arguments = [str(listed)]
        if self.body is not None:
            body = listed.with_suffix(".body")
            body.write_bytes(self.body)
            arguments += [str(body), self.content_type]
        url, missing = self.server.url("/"), self.missing
        return lambda _turn: wrk(url, "listed.lua", arguments=arguments, missing=missing)[0]

    def ask_once(self) -> tuple[int, bytes]:
        """Sends the first request; returns the status and the body of the response."""
        method, path = self.requests[0].split()
        return ask(self.server, method, path, self.body, self.content_type)


def ask(server: Server, method: str, path: str, body=None, content_type: str = JSON) -> tuple[int, bytes]:
    """One request; returns the status and the body of the response."""
    headers = {} if body is None else {"Content-Type": content_type}
    request = urllib.request.Request(server.url(path), data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask_json(server: Server, path: str, question: dict) -> dict:
    """A POST that must succeed."""
    status, body = ask(server, "POST", path, json.dumps(question).encode())
    if status != 200:
        raise Failed(f"{path} responded {status} {body!r}")
    return json.loads(body)


def value_of(length: int) -> bytes:
    """Text without anything that JSON or a URL would escape, the same in each run."""
    return bytes(b"0123456789abcdefghijklmnopqrstuvwxyz"[at * at % 36] for at in range(length))


def listed(method: str, prefix: str, suffix: str = "") -> list[str]:
    """One request for each key."""
    return [f"{method} {prefix}bench-{number}{suffix}" for number in range(KEYS)]


def cache(fleet: Fleet, folder: Path, rounds: int):
    """Bumps, snapshots, and lookups and puts of cached values."""
    ours, webdis = fleet.holdall("normal"), fleet.webdis()
    paths = {server: snapshot_path(server) for server in ours}
    yield from measured(bumps(ours, webdis), folder, rounds, target=1.2)
    yield from measured(snapshots(ours, webdis, paths), folder, rounds)
    yield from measured(values(ours, webdis, paths), folder, rounds)
    fleet.stop_all()
    yield from bumps_on_disk(fleet, folder, rounds)


def snapshot_path(server: Server) -> str:
    """The path of batch snapshots that this server has."""
    _, body = ask(server, "GET", "/openapi.json")
    known = json.loads(body)["paths"]
    return next(path for path in BATCH_SNAPSHOT if path in known)


def measured(pairs, folder: Path, rounds: int, target: float | None = None):
    """A row for each pair of our loads and the peer's."""
    for work, peer_name, ours, theirs in pairs:
        file = work.replace(" ", "-").replace(",", "")
        mine, peer = interleaved(
            rounds, [load.rate(folder, file) for load in ours], theirs.rate(folder, file)
        )
        work = f"{work}, 32 connections" + (", sync = normal" if target else "")
        yield Row(work, mine, rate, peer_name, peer, more_is_better=True, target=target)


def bumps(ours: list[Server], webdis: Server):
    """Bumps of many keys, and of one hot key."""
    requests, increments = listed("POST", "/v1/generations/", "/bump"), listed("GET", "/INCR/")
    for work, of in (("bump", KEYS), ("bump of one hot key", 1)):
        loads = [Load(server, requests[:of]) for server in ours]
        yield work, "Webdis INCR", loads, Load(webdis, increments[:of])


def bumps_on_disk(fleet: Fleet, folder: Path, rounds: int):
    """Bumps that are on disk before their response, beside etcd's puts, which are as well."""
    ours, etcd = fleet.holdall("full"), fleet.etcd()
    requests = listed("POST", "/v1/generations/", "/bump")
    mine, peer = interleaved(
        rounds,
        [Load(server, requests).rate(folder, "bump-full") for server in ours],
        lambda _turn: wrk(etcd.url("/v3/kv/put"), "etcd_put.lua")[0],
    )
    work = "bump, 32 connections, sync = full"
    yield Row(work, mine, rate, "etcd put", peer, more_is_better=True, target=1)
    fleet.stop_all()


def snapshots(ours: list[Server], webdis: Server, paths: dict[Server, str]):
    """Reads of the generation of one key, and of a hundred at once, all of which were bumped."""
    loads = [Load(server, listed("GET", "/v1/generations/")) for server in ours]
    gets = Load(webdis, listed("GET", "/GET/"))
    for load in loads:
        expect(json.loads(load.ask_once()[1])["generation"] > 0, "holdall holds a generation")
    expect(int(json.loads(gets.ask_once()[1])["GET"]) > 0, "Webdis holds a counter")
    yield "snapshot of 1 key", "Webdis GET", loads, gets
    keys = [f"bench-{number}" for number in range(SNAPSHOT_KEYS)]
    question = json.dumps({"keys": keys}).encode()
    loads = [Load(server, [f"POST {paths[server]}"], question, JSON) for server in ours]
    gets = Load(webdis, [f"GET /MGET/{'/'.join(keys)}"])
    for load in loads:
        found = json.loads(load.ask_once()[1])["generations"]
        expect(len(found) == len(keys), "holdall returns all")
    expect(None not in json.loads(gets.ask_once()[1])["MGET"], "Webdis returns all")
    yield f"snapshot of {SNAPSHOT_KEYS} keys", "Webdis MGET", loads, gets


def values(ours: list[Server], webdis: Server, paths: dict[Server, str]):
    """Puts, lookups that find what was put, and lookups that find nothing."""
    for name, length in VALUES.items():
        value, folder = value_of(length), f"values-{length}"
        puts = [Load(server, put_requests(server, folder, paths[server]), value) for server in ours]
        sets = Load(webdis, listed("PUT", f"/SET/{folder}-"), value)
        # Measuring them has put every value before the lookups.
        yield f"put of {name}", "Webdis SET", puts, sets
        hits = [Load(server, listed("GET", f"/v1/cache/{folder}/")) for server in ours]
        gets = Load(webdis, listed("GET", f"/GET/{folder}-", ".txt"))
        for load in (*hits, gets):
            expect(load.ask_once() == (200, value), f"{load.server.name} returns what was put")
        yield f"get of {name}, hit", "Webdis GET", hits, gets
    misses = [Load(server, listed("GET", "/v1/cache/missing/"), missing=True) for server in ours]
    gets = Load(webdis, listed("GET", "/GET/missing-", ".txt"), missing=True)
    for load in (*misses, gets):
        expect(load.ask_once()[0] == 404, f"{load.server.name} finds nothing")
    yield "get, miss", "Webdis GET", misses, gets


def put_requests(holdall: Server, namespace: str, snapshot: str) -> list[str]:
    """Puts of each key, with the fence of its last bump."""
    keys = [f"bench-{number}" for number in range(KEYS)]
    states = ask_json(holdall, snapshot, {"keys": keys})["generations"]
    return [f"PUT /v1/cache/{namespace}/{key}?fence={states[key]['fence']}" for key in keys]


def expect(holds: bool, what: str) -> None:
    """Fails the measurement when something that it relies on does not hold."""
    if not holds:
        raise Failed(f"not so: {what}")
