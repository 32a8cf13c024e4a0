"""Generations and the cache over HTTP, beside Webdis and etcd.

Both sides get the same kind of requests from the same script, over 1,000 keys, and what they read is
checked before it is measured. Webdis answers GET with the bare bytes, as holdall does.
"""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from measure import interleaved, wrk
from processes import Failed, Server
from rows import compared, faster
from servers import Fleet

KEYS = 1_000
SNAPSHOT_KEYS = 100
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
        """What `interleaved` calls: gives requests a second."""
        listed = folder / f"{name}-{self.server.name}.requests"
        listed.write_text("".join(f"{request}\n" for request in self.requests))
        arguments = [str(listed)]
        if self.body is not None:
            body = listed.with_suffix(".body")
            body.write_bytes(self.body)
            arguments += [str(body), self.content_type]
        url, missing = self.server.url("/"), self.missing
        return lambda _turn: wrk(url, "listed.lua", arguments=arguments, missing=missing)[0]

    def ask_once(self) -> tuple[int, bytes]:
        """Sends the first request; returns the status and the body of the answer."""
        method, path = self.requests[0].split()
        return ask(self.server, method, path, self.body, self.content_type)


def ask(server: Server, method: str, path: str, body=None, content_type: str = JSON) -> tuple[int, bytes]:
    """One request; returns the status and the body of the answer."""
    headers = {} if body is None else {"Content-Type": content_type}
    request = urllib.request.Request(server.url(path), data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask_json(server: Server, path: str, question: dict) -> dict:
    """A POST that must succeed."""
    status, answer = ask(server, "POST", path, json.dumps(question).encode())
    if status != 200:
        raise Failed(f"{path} answered {status} {answer!r}")
    return json.loads(answer)


def value_of(length: int) -> bytes:
    """Text without anything that JSON or a URL would escape, the same in each run."""
    return bytes(b"0123456789abcdefghijklmnopqrstuvwxyz"[at * at % 36] for at in range(length))


def listed(method: str, prefix: str, suffix: str = "") -> list[str]:
    """One request for each key."""
    return [f"{method} {prefix}bench-{number}{suffix}" for number in range(KEYS)]


def cache(fleet: Fleet, folder: Path, rounds: int):
    """Bumps, snapshots, and lookups and puts of cached values."""
    holdall, webdis = fleet.holdall("normal"), fleet.webdis()
    yield from measured(bumps(holdall, webdis), folder, rounds, target=1.2)
    yield from measured(snapshots(holdall, webdis), folder, rounds)
    yield from measured(values(holdall, webdis), folder, rounds)
    fleet.stop_all()
    yield from bumps_on_disk(fleet, folder, rounds)


def measured(pairs, folder: Path, rounds: int, target: float | None = None):
    """A row for each pair of our load and the peer's."""
    for work, peer_name, ours, theirs in pairs:
        file = work.replace(" ", "-").replace(",", "")
        mine, peer = interleaved(rounds, ours.rate(folder, file), theirs.rate(folder, file))
        work = f"{work}, 32 connections"
        if target is None:
            yield compared(work, mine, peer_name, peer)
        else:
            yield faster(f"{work}, sync = normal", mine, peer_name, peer, target)


def bumps(holdall: Server, webdis: Server):
    """Bumps of many keys, and of one that everybody wants to bump."""
    ours = Load(holdall, listed("POST", "/v1/generations/", "/bump"))
    theirs = Load(webdis, listed("GET", "/INCR/"))
    yield "bump", "Webdis INCR", ours, theirs
    hot = Load(holdall, ours.requests[:1]), Load(webdis, theirs.requests[:1])
    yield "bump of one hot key", "Webdis INCR", *hot


def bumps_on_disk(fleet: Fleet, folder: Path, rounds: int):
    """Bumps that are on the disk before their answer, beside etcd's puts, which are as well."""
    holdall, etcd = fleet.holdall("full"), fleet.etcd()
    ours = Load(holdall, listed("POST", "/v1/generations/", "/bump"))
    mine, peer = interleaved(
        rounds,
        ours.rate(folder, "bump-full"),
        lambda _turn: wrk(etcd.url("/v3/kv/put"), "etcd_put.lua")[0],
    )
    yield faster("bump, 32 connections, sync = full", mine, "etcd put", peer, 1.0)
    fleet.stop_all()


def snapshots(holdall: Server, webdis: Server):
    """Reads of the generation of one key, and of a hundred at once, all of which were bumped."""
    ours, theirs = Load(holdall, listed("GET", "/v1/generations/")), Load(webdis, listed("GET", "/GET/"))
    expect(json.loads(ours.ask_once()[1])["generation"] > 0, "holdall holds a generation")
    expect(int(json.loads(theirs.ask_once()[1])["GET"]) > 0, "Webdis holds a counter")
    yield "snapshot of 1 key", "Webdis GET", ours, theirs
    keys = [f"bench-{number}" for number in range(SNAPSHOT_KEYS)]
    question = json.dumps({"keys": keys}).encode()
    ours = Load(holdall, ["POST /v1/generations/snapshot"], question, JSON)
    theirs = Load(webdis, [f"GET /MGET/{'/'.join(keys)}"])
    expect(len(json.loads(ours.ask_once()[1])["generations"]) == len(keys), "holdall gives all")
    expect(None not in json.loads(theirs.ask_once()[1])["MGET"], "Webdis gives all")
    yield f"snapshot of {SNAPSHOT_KEYS} keys", "Webdis MGET", ours, theirs


def values(holdall: Server, webdis: Server):
    """Puts, lookups that find what was put, and lookups that find nothing."""
    for name, length in VALUES.items():
        value, folder = value_of(length), f"values-{length}"
        puts = Load(holdall, put_requests(holdall, folder), value)
        sets = Load(webdis, listed("PUT", f"/SET/{folder}-"), value)
        # Measuring them has put every value when it comes to looking them up.
        yield f"put of {name}", "Webdis SET", puts, sets
        hits = Load(holdall, listed("GET", f"/v1/cache/{folder}/"))
        gets = Load(webdis, listed("GET", f"/GET/{folder}-", ".txt"))
        for load in (hits, gets):
            expect(load.ask_once() == (200, value), f"{load.server.name} gives what was put")
        yield f"get of {name}, hit", "Webdis GET", hits, gets
    misses = Load(holdall, listed("GET", "/v1/cache/missing/"), missing=True)
    gets = Load(webdis, listed("GET", "/GET/missing-", ".txt"), missing=True)
    for load in (misses, gets):
        expect(load.ask_once()[0] == 404, f"{load.server.name} gives nothing")
    yield "get, miss", "Webdis GET", misses, gets


def put_requests(holdall: Server, namespace: str) -> list[str]:
    """Puts of each key, with the fence that stands for it."""
    keys = [f"bench-{number}" for number in range(KEYS)]
    states = ask_json(holdall, "/v1/generations/snapshot", {"keys": keys})["generations"]
    return [f"PUT /v1/cache/{namespace}/{key}?fence={states[key]['fence']}" for key in keys]


def expect(holds: bool, what: str) -> None:
    """Fails the measurement when something that it relies on does not hold."""
    if not holds:
        raise Failed(f"not so: {what}")
