"""What is measured: one function for each group of rows of the table of promised speed.

Every function starts its own servers, compares them in turns, and yields rows. A row passes when
its ratio reaches the promise; ratios are "how many times better than the peer", so larger is better.
"""

import json
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from data import write_exposition
from measure import curl, etcd_puts, interleaved, push, wrk
from processes import Server, status_of, wait_until
from servers import Fleet

PUSH = "/v1/series?role=leader&source=leader_scrape"
PUSHGATEWAY_PUSH = "/metrics/job/bench"
VICTORIA_PUSH = "/api/v1/import/prometheus"
# The same p99 up to what two runs of the same server differ by.
SAME_P99 = 1.25
P99_SECONDS = 0.005
READY_SECONDS = 3.0


@dataclass
class Row:
    """One line of the table."""

    work: str
    ours: str
    peer: str
    ratio: float | None
    target: str
    passed: bool | None


def better(work: str, ours: float, peer_name: str, peer: float, target: float, show) -> Row:
    """A row where the ratio of the peer's time (or size) to ours has a target."""
    ratio = peer / ours
    return Row(work, show(ours), f"{peer_name} {show(peer)}", ratio, f"{target:g}x", ratio >= target)


def faster(work: str, ours: float, peer_name: str, peer: float, target: float) -> Row:
    """A row where the ratio of our rate to the peer's has a target."""
    row = compared(work, ours, peer_name, peer)
    row.target, row.passed = f"{target:g}x", row.ratio >= target
    return row


def compared(work: str, ours: float, peer_name: str, peer: float) -> Row:
    """A row that shows the ratio of our rate to the peer's, without a promise."""
    rate = lambda value: f"{value:,.0f}/s"
    return Row(work, rate(ours), f"{peer_name} {rate(peer)}", ours / peer, "", None)


def shown_only(work: str, ours: str, peer: str = "") -> Row:
    """A row without a promise."""
    return Row(work, ours, peer, None, "", None)


def seconds(value: float) -> str:
    """A time with the unit that reads best."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def size(value: float) -> str:
    """Bytes with the unit that reads best."""
    return f"{value / 2**20:.0f} MiB" if value >= 2**20 else f"{value:.0f} B"


def known_pushes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """A push of series that are all held already, each with another value."""
    files = [write_exposition(folder, series, variant) for variant in "ab"]
    peers = {
        "holdall": (fleet.holdall(), PUSH),
        "Pushgateway": (fleet.pushgateway(False), PUSHGATEWAY_PUSH),
        "Pushgateway, persistent": (fleet.pushgateway(True), PUSHGATEWAY_PUSH),
        "VictoriaMetrics": (fleet.victoria_metrics(), VICTORIA_PUSH),
    }
    for server, path in peers.values():
        push(server.url(path), files[1])
    ours, gateway, persistent, victoria = interleaved(
        rounds,
        *(
            lambda turn, url=server.url(path): push(url, files[turn % 2])
            for server, path in peers.values()
        ),
    )
    fleet.stop(*(server for server, _ in peers.values()))
    work = f"push of {series:,} known series"
    yield better(work, ours, "Pushgateway", gateway, 8, seconds)
    yield better(work, ours, "Pushgateway, persistent", persistent, 8, seconds)
    yield better(work, ours, "VictoriaMetrics", victoria, 1, seconds)


def new_pushes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """A push of series that the server has never seen: each round has fresh servers."""
    file = write_exposition(folder, series, "a")

    def once(start, path):
        def measure(_turn):
            server = start()
            taken = push(server.url(path), file)
            fleet.stop(server)
            return taken

        return measure

    ours, gateway, victoria = interleaved(
        rounds,
        once(fleet.holdall, PUSH),
        once(lambda: fleet.pushgateway(False), PUSHGATEWAY_PUSH),
        once(fleet.victoria_metrics, VICTORIA_PUSH),
    )
    work = f"push of {series:,} new series"
    yield better(work, ours, "Pushgateway", gateway, 5, seconds)
    yield shown_only(work, seconds(ours), f"VictoriaMetrics {seconds(victoria)}")


def scrapes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """Scrapes of everything held, plain and gzip, and what it takes in memory."""
    file = write_exposition(folder, series, "a")
    holdall, gateway = fleet.holdall(), fleet.pushgateway(False)
    empty = {server: server.resident_bytes() for server in (holdall, gateway)}
    push(holdall.url(PUSH), file)
    push(gateway.url(PUSHGATEWAY_PUSH), file)
    wait_for_page(holdall, file.stat().st_size)
    static = folder / "static"
    static.mkdir(exist_ok=True)
    urllib.request.urlretrieve(holdall.url("/metrics"), static / "metrics.txt")
    nginx = fleet.nginx(static)

    def plain(server, path="/metrics"):
        return lambda _turn: curl(server.url(path))[0]

    def gzip(server):
        return lambda _turn: curl(server.url("/metrics"), "-H", "Accept-Encoding: gzip")[0]

    held = {server: settled_bytes(server) - empty[server] for server in (holdall, gateway)}
    ours, theirs, limit = interleaved(
        rounds, plain(holdall), plain(gateway), plain(nginx, "/metrics.txt")
    )
    ours_gzip, theirs_gzip = interleaved(rounds, gzip(holdall), gzip(gateway))
    after = {server: settled_bytes(server) - empty[server] for server in (holdall, gateway)}
    fleet.stop(holdall, gateway, nginx)
    work = f"scrape of {series:,} series"
    yield better(f"{work}, plain", ours, "Pushgateway", theirs, 30, seconds)
    yield better(f"{work}, plain", ours, "nginx, same bytes", limit, 0.5, seconds)
    yield better(f"{work}, gzip", ours_gzip, "Pushgateway", theirs_gzip, 100, seconds)
    per_series = lambda sizes, server: sizes[server] / series
    for moment, sizes in (("pushed", held), ("scraped", after)):
        yield better(
            f"memory per series, {series:,} {moment}",
            *(per_series(sizes, holdall), "Pushgateway", per_series(sizes, gateway), 4, size),
        )


def wait_for_page(holdall: Server, least_bytes: int) -> None:
    """Waits until /metrics shows what was pushed."""
    wait_until(
        lambda: curl(holdall.url("/metrics"))[1] >= least_bytes, "the page shows the push", pause=0.2
    )


def refreshes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """What the refresher does when a hundredth of all series has changed, beside when all have."""
    holdall = fleet.holdall()
    push(holdall.url(PUSH), write_exposition(folder, series, "a"))
    wait_for_page(holdall, write_exposition(folder, series, "a").stat().st_size)

    def after_push(changed: int):
        def measure(turn):
            file = write_exposition(folder, changed, "ba"[turn % 2])
            spent, ticks = refresh_totals(holdall)
            push(holdall.url(PUSH), file)
            # The first tick that ends may have begun before the push; the second has not.
            wait_until(
                lambda: refresh_totals(holdall)[1] >= ticks + 2, "the refresher ticks", pause=0.2
            )
            return refresh_totals(holdall)[0] - spent

        return measure

    whole, part = interleaved(rounds, after_push(series), after_push(series // 100))
    fleet.stop(holdall)
    work = f"refresh, {series // 100:,} of {series:,} changed"
    yield better(work, part, "all changed", whole, 20, seconds)


def refresh_totals(holdall: Server) -> tuple[float, int]:
    """The seconds that all refreshes have taken, and their number."""
    with urllib.request.urlopen(holdall.url("/metrics"), timeout=60) as page:
        name = "holdall_refresh_duration_seconds"
        wanted = (f"{name}_sum ".encode(), f"{name}_count ".encode())
        totals = dict(line.decode().split() for line in page if line.startswith(wanted))
    return float(totals[f"{name}_sum"]), int(totals[f"{name}_count"])


def settled_bytes(server: Server) -> int:
    """The memory of a server once it has stopped changing by more than a hundredth a second."""
    last = [server.resident_bytes()]

    def is_settled():
        time.sleep(1)
        now = server.resident_bytes()
        settled = abs(now - last[0]) * 100 < last[0]
        last[0] = now
        return settled

    wait_until(is_settled, f"the memory of {server.name} settles")
    return last[0]


def single_pushes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """The slowest hundredth of pushes of one series, with few and with many held."""
    few, many = fleet.holdall(), fleet.holdall()
    push(few.url(PUSH), write_exposition(folder, 1_000, "a"))
    file = write_exposition(folder, series, "a")
    push(many.url(PUSH), file)
    wait_for_page(many, file.stat().st_size)
    p99 = lambda server: lambda _turn: wrk(server.url(PUSH), "push_one.lua", 1, 3)[1]
    with_few, with_many = interleaved(rounds, p99(few), p99(many))
    fleet.stop(few, many)
    work = f"p99 of one push, {series:,} held"
    limit = with_many < P99_SECONDS
    yield Row(work, seconds(with_many), "", None, f"< {seconds(P99_SECONDS)}", limit)
    ratio = with_few / with_many
    same = with_many <= with_few * SAME_P99
    yield Row(work, seconds(with_many), f"1,000 held {seconds(with_few)}", ratio, "the same", same)


def starts(fleet: Fleet, folder: Path, series: int, rounds: int):
    """The start of a server that has its series on disk."""
    server = fleet.holdall()
    file = write_exposition(folder, series, "a")
    push(server.url(PUSH), file)

    def restart(_turn):
        server.stop()
        server.launch()
        started = time.perf_counter()
        live.append(wait_until(lambda: status_of(server.url("/livez")) == 200, "it is live"))
        wait_until(lambda: status_of(server.url("/readyz")) == 200, "it is ready")
        return time.perf_counter() - started

    live: list[float] = []
    (ready,) = interleaved(rounds, restart)
    wait_for_page(server, file.stat().st_size)
    fleet.stop(server)
    work = f"start with {series:,} series on disk"
    slowest = max(live)
    yield Row(f"{work}: live", seconds(slowest), "", None, "at once (< 0.5 s)", slowest < 0.5)
    yield Row(f"{work}: ready", seconds(ready), "", None, f"{READY_SECONDS:g} s", ready < READY_SECONDS)


def coordination(fleet: Fleet, folder: Path, rounds: int):
    """Locks, checkpoints and renewals over HTTP, beside what else coordinates over HTTP."""
    for sync, peer_name, target in (("normal", "Webdis INCR", 1.2), ("full", "etcd put", 1.0)):
        holdall = fleet.holdall(sync)
        leases = acquire_leases(holdall, folder, 32)
        if sync == "normal":
            peer = fleet.webdis()
            peer_rate = lambda _turn, url=peer.url("/INCR/bench"): wrk(url)[0]
        else:
            peer = fleet.etcd()
            # Both answer JSON over HTTP; etcd's own protocol is shown for comparison below.
            peer_rate = lambda _turn, url=peer.url("/v3/kv/put"): wrk(url, "etcd_put.lua")[0]
        works = {
            "lock": ("lock.lua", lambda turn: [f"{sync}-{turn}-{time.monotonic_ns()}"]),
            "checkpoint": ("checkpoint.lua", lambda _turn: []),
            "lease renewal": ("renew.lua", lambda _turn: [str(leases)]),
        }

        def rate(script, arguments, connections=32):
            return lambda turn: wrk(
                holdall.url("/"), script, connections, arguments=arguments(turn)
            )[0]

        *ours, theirs = interleaved(rounds, *(rate(*work) for work in works.values()), peer_rate)
        for work, mine in zip(works, ours):
            yield faster(f"{work}, 32 connections, sync = {sync}", mine, peer_name, theirs, target)
        if sync == "full":
            few, many, grpc = interleaved(
                rounds,
                rate(*works["checkpoint"]),
                rate(*works["checkpoint"], connections=128),
                lambda _turn: etcd_puts(peer.port, folder),
            )
            yield shown_only("checkpoint, 32 connections, sync = full", f"{few:,.0f}/s", f"etcd put over gRPC {grpc:,.0f}/s")
            work = "checkpoint, sync = full, 128 connections"
            yield Row(work, f"{many:,.0f}/s", f"32: {few:,.0f}/s", many / few, "> 1x", many > few)
        fleet.stop_all()


def acquire_leases(holdall: Server, folder: Path, count: int) -> Path:
    """Takes leases and writes their names and tokens where renew.lua reads them."""
    lines = []
    for number in range(count):
        request = urllib.request.Request(
            holdall.url(f"/v1/leases/bench-{number}/acquire"),
            data=json.dumps({"holder": "bench", "ttl": "10m"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines.append(f"bench-{number} {json.load(answer)['fencing_token']}\n")
    file = folder / "leases"
    file.write_text("".join(lines))
    return file
