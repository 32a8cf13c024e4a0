"""Pushes, scrapes, refreshes and starts: a function for each group of rows.

Every function starts its own servers, measures them interleaved, and yields rows.
"""

import json
import statistics
import time
import urllib.request
from pathlib import Path

from data import write_exposition, write_others, write_scattered
from measure import curl, interleaved, push, wrk
from processes import Server, status_of, wait_until
from servers import Fleet
from table import Row, seconds, size

PUSH = "/v1/series?role=leader&source=leader_scrape"
PUSHGATEWAY_PUSH = "/metrics/job/bench"
VICTORIA_PUSH = "/api/v1/import/prometheus"
# The same p99, up to what two runs of the same server differ by.
SAME_P99 = 0.8
# How full a store near its budget is, and the pushes of one round.
NEARLY_FULL, REPEATED = 0.95, 5


def known_pushes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """A push of series that are all held already, each with another value."""
    files = [write_exposition(folder, series, step) for step in (1, 2)]
    ours = fleet.holdall()
    peers = [
        (fleet.pushgateway(False), PUSHGATEWAY_PUSH),
        (fleet.pushgateway(True), PUSHGATEWAY_PUSH),
        (fleet.victoria_metrics(), VICTORIA_PUSH),
    ]
    for server, path in [*((server, PUSH) for server in ours), *peers]:
        push(server.url(path), files[1])
    pushes = lambda server, path: lambda turn: push(server.url(path), files[turn % 2])
    mine, gateway, persistent, victoria = interleaved(
        rounds, [pushes(server, PUSH) for server in ours], *(pushes(*peer) for peer in peers)
    )
    fleet.stop_all()
    work = f"push of {series:,} known series"
    yield Row(work, mine, seconds, "Pushgateway", gateway, target=8)
    yield Row(work, mine, seconds, "Pushgateway, persistent", persistent, target=8)
    yield Row(work, mine, seconds, "VictoriaMetrics", victoria, target=1)


def new_pushes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """A push of series that the server has never seen: each round has fresh servers."""
    file = write_exposition(folder, series, 1)

    def once(start, path):
        def measure(_turn):
            server = start()
            taken = push(server.url(path), file)
            fleet.stop(server)
            return taken

        return measure

    ours, gateway, victoria = interleaved(
        rounds,
        [once(start, PUSH) for start in fleet.starters()],
        once(lambda: fleet.pushgateway(False), PUSHGATEWAY_PUSH),
        once(fleet.victoria_metrics, VICTORIA_PUSH),
    )
    work = f"push of {series:,} new series"
    yield Row(work, ours, seconds, "Pushgateway", gateway, target=5)
    yield Row(work, ours, seconds, "VictoriaMetrics", victoria)


def single_pushes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """The 99th percentile of pushes of one series, with few and with many held."""
    few, many = fleet.holdall(), fleet.holdall()
    small, large = write_exposition(folder, 1_000, 1), write_exposition(folder, series, 1)
    for server in few:
        push(server.url(PUSH), small)
    for server in many:
        push(server.url(PUSH), large)
    for server in many:
        wait_for_page(server, large.stat().st_size)
    p99 = lambda server: lambda _turn: wrk(server.url(PUSH), "push_one.lua", 1, 3)[1]
    with_few, with_many = interleaved(rounds, [p99(one) for one in few], [p99(one) for one in many])
    fleet.stop_all()
    work = f"p99 of one push, {series:,} held"
    yield Row(work, with_many, seconds, limit=0.005)
    yield Row(work, with_many, seconds, "1,000 held", with_few.now, target=SAME_P99)


def budgets(fleet: Fleet, folder: Path, series: int, rounds: int):
    """Pushes to a store that is nearly full, beside one that is half full; and one that does not fit."""
    for store in ("embedded", "redis"):
        base = write_exposition(folder, int(series * NEARLY_FULL), 1)
        fits, too_many = write_others(folder, series // 100), write_others(folder, series // 10)
        full, half = (
            fleet.holdall(store=store, settings={"HOLDALL_SERIES__MAX_SERIES": str(most)})
            for most in (series, 2 * series)
        )
        for server in (*full, *half):
            push(server.url(PUSH), base)

        def fitting(server):
            def once():
                taken = push(server.url(PUSH), fits)
                delete_others(server)
                return taken

            return lambda _turn: statistics.median(once() for _ in range(REPEATED))

        def refused(server):
            once = lambda: push(server.url(PUSH), too_many, status="422")
            return lambda _turn: statistics.median(once() for _ in range(REPEATED))

        near, far, refusals = interleaved(
            rounds,
            *([measure(one) for one in of] for measure, of in ((fitting, full), (fitting, half), (refused, full))),
        )
        fleet.stop_all()
        work = f"{store}: push of {series // 100:,} new, {NEARLY_FULL:.0%} of the budget used"
        yield Row(work, near, seconds, "half used", far.now)
        yield Row(f"{store}: push of {series // 10:,} new, refused", refusals, seconds)


def delete_others(server: Server) -> None:
    """Deletes what `write_others` wrote."""
    body = json.dumps({"match": ["bench_other_total"]})
    curl(server.url("/v1/series/delete"), "-d", body, "-H", "Content-Type: application/json")


def scrapes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """Scrapes of everything held, plain and gzip, and what it takes in memory."""
    file = write_exposition(folder, series, 1)
    ours, gateway = fleet.holdall(), fleet.pushgateway(False)
    everyone = [*ours, gateway]
    empty = {server: server.resident_bytes() for server in everyone}
    for server in ours:
        push(server.url(PUSH), file)
    push(gateway.url(PUSHGATEWAY_PUSH), file)
    for server in ours:
        wait_for_page(server, file.stat().st_size)
    static = folder / "static"
    static.mkdir(exist_ok=True)
    urllib.request.urlretrieve(ours[0].url("/metrics"), static / "metrics.txt")
    nginx = fleet.nginx(static)

    def plain(server, path="/metrics"):
        return lambda _turn: curl(server.url(path))[0]

    def gzip(server):
        return lambda _turn: curl(server.url("/metrics"), "-H", "Accept-Encoding: gzip")[0]

    def bytes_a_series():
        held = {server: (settled_bytes(server) - empty[server]) / series for server in everyone}
        return interleaved(1, [lambda _turn, server=server: held[server] for server in ours]), held[gateway]

    (pushed,), gateway_pushed = bytes_a_series()
    mine, theirs, limit = interleaved(
        rounds, [plain(server) for server in ours], plain(gateway), plain(nginx, "/metrics.txt")
    )
    mine_gzip, theirs_gzip = interleaved(rounds, [gzip(server) for server in ours], gzip(gateway))
    (scraped,), gateway_scraped = bytes_a_series()
    fleet.stop_all()
    work = f"scrape of {series:,} series"
    yield Row(f"{work}, plain", mine, seconds, "Pushgateway", theirs, target=30)
    yield Row(f"{work}, plain", mine, seconds, "nginx, same bytes", limit, target=0.5)
    yield Row(f"{work}, gzip", mine_gzip, seconds, "Pushgateway", theirs_gzip, target=100)
    work = f"memory per series, {series:,}"
    yield Row(f"{work} pushed", pushed, size, "Pushgateway", gateway_pushed, target=4)
    yield Row(f"{work} scraped", scraped, size, "Pushgateway", gateway_scraped, target=4)


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


def wait_for_page(holdall: Server, least_bytes: int) -> None:
    """Waits until /metrics shows what was pushed."""
    wait_until(
        lambda: curl(holdall.url("/metrics"))[1] >= least_bytes, "the page shows the push", pause=0.2
    )


def refreshes(fleet: Fleet, folder: Path, series: int, rounds: int):
    """What the refresher does when a hundredth of all series has changed, beside when all have."""
    ours = fleet.holdall()
    file = write_exposition(folder, series, 1)
    for server in ours:
        push(server.url(PUSH), file)
    for server in ours:
        wait_for_page(server, file.stat().st_size)
    few = series // 100
    # Each push changes the values of all its series: `step` never repeats from one push to the next.
    files = {
        "all": lambda turn: write_exposition(folder, series, 2 - turn % 2),
        "neighbours": lambda turn: write_exposition(folder, few, 3 + turn),
        "random places": lambda turn: write_scattered(folder, series, few, 3 + turn),
    }

    def refresh_after(write):
        return [lambda turn, server=server: refresh_seconds(server, write(turn)) for server in ours]

    whole, *parts = interleaved(rounds, *map(refresh_after, files.values()))
    fleet.stop_all()
    for places, part in zip(list(files)[1:], parts):
        work = f"refresh, {few:,} of {series:,} changed, {places}"
        yield Row(work, part, seconds, "all changed", whole.now, target=20)


def refresh_seconds(holdall: Server, file: Path) -> float:
    """Pushes a file; returns the seconds that the refreshes took which brought it to the page."""
    spent, ticks = refresh_totals(holdall)
    push(holdall.url(PUSH), file)
    # The first refresh that ends may have begun before the push; the second has not.
    wait_until(lambda: refresh_totals(holdall)[1] >= ticks + 2, "the refresher ticks", pause=0.2)
    return refresh_totals(holdall)[0] - spent


def refresh_totals(holdall: Server) -> tuple[float, int]:
    """The seconds that all refreshes have taken, and their number."""
    with urllib.request.urlopen(holdall.url("/metrics"), timeout=60) as page:
        name = "holdall_refresh_duration_seconds"
        wanted = (f"{name}_sum ".encode(), f"{name}_count ".encode())
        totals = dict(line.decode().split() for line in page if line.startswith(wanted))
    return float(totals[f"{name}_sum"]), int(totals[f"{name}_count"])


def starts(fleet: Fleet, folder: Path, series: int, rounds: int):
    """The start of a server that has its series on disk."""
    ours = fleet.holdall()
    file = write_exposition(folder, series, 1)
    for server in ours:
        push(server.url(PUSH), file)
    slowest_live = {server: 0.0 for server in ours}

    def restart(server):
        def measure(_turn):
            server.stop()
            server.launch()
            started = time.perf_counter()
            live = wait_until(lambda: status_of(server.url("/livez")) == 200, "it is live")
            wait_until(lambda: status_of(server.url("/readyz")) == 200, "it is ready")
            slowest_live[server] = max(slowest_live[server], live)
            return time.perf_counter() - started

        return measure

    (ready,) = interleaved(rounds, [restart(server) for server in ours])
    (live,) = interleaved(1, [lambda _turn, server=server: slowest_live[server] for server in ours])
    for server in ours:
        wait_for_page(server, file.stat().st_size)
    fleet.stop_all()
    work = f"start with {series:,} series on disk"
    yield Row(f"{work}: live", live, seconds, limit=0.5)
    yield Row(f"{work}: ready", ready, seconds, limit=3.0)
