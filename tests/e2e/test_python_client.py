"""A Python client generated from the committed document calls every operation of the server."""

import base64
import datetime
import importlib
import io
import json
import math
import re
import sys
from pathlib import Path

import pytest

from conftest import OPENAPI, REPOSITORY

PACKAGE = "holdall_client"
WEIRD = "a/b c%25?é"
PIPELINE = {
    "HOLDALL_PIPELINES__VIEWS__KIND": "sum",
    "HOLDALL_PIPELINES__VIEWS__WINDOW": "1h",
    "HOLDALL_PIPELINES__VIEWS__RETENTION": "7days",
    "HOLDALL_PIPELINES__VIEWS__DEDUP": "1h",
    "HOLDALL_PIPELINES__VIEWS__HOOK__STREAM": "true",
}
NOON = datetime.datetime(2026, 1, 2, 12, 0, 0, tzinfo=datetime.timezone.utc)


@pytest.fixture(scope="module")
def package(run):
    """Generates the client and makes it importable."""
    folder = REPOSITORY / "target" / "e2e" / "python"
    generator = Path(sys.executable).with_name("openapi-python-client")
    run(
        *(generator, "generate", "--path", OPENAPI, "--meta", "none", "--overwrite"),
        *("--output-path", folder / PACKAGE),
    )
    sys.path.insert(0, str(folder))
    yield importlib.import_module(PACKAGE)
    sys.path.remove(str(folder))


class Caller:
    """Calls operations by their id and remembers which."""

    def __init__(self, package, holdall, operations):
        self.client = package.AuthenticatedClient(
            base_url=holdall.url(), token="not-asked-for", raise_on_unexpected_status=True, timeout=30
        )
        self._operations = operations
        self.called: set[str] = set()

    def module(self, operation: str):
        """The generated module of an operation."""
        tag = self._operations[operation]["tags"][0].replace("-", "_")
        name = re.sub(r"([A-Z])", lambda match: "_" + match[1].lower(), operation)
        return importlib.import_module(f"{PACKAGE}.api.{tag}.{name}")

    def __call__(self, operation: str, *path: str, status: int = 200, **parameters):
        """The typed response of one call."""
        response = self.module(operation).sync_detailed(*path, client=self.client, **parameters)
        assert response.status_code == status, response.content
        assert response.parsed is not None
        self.called.add(operation)
        return response.parsed

    def nothing(self, operation: str, *path: str, status: int, **parameters):
        """One call whose response has no body."""
        response = self.module(operation).sync_detailed(*path, client=self.client, **parameters)
        assert (response.status_code, response.content) == (status, b"")

    def first_event(self, operation: str, *path: str, **parameters) -> str:
        """The first event of a stream, which never ends."""
        request = self.module(operation)._get_kwargs(*path, **parameters)
        with self.client.get_httpx_client().stream(**request) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream"
            self.called.add(operation)
            return next(line for line in response.iter_lines() if line.startswith("data: "))


@pytest.fixture
def call(package, start_holdall, operations):
    """Calls operations of a fresh server with a pipeline."""
    return Caller(package, start_holdall(**PIPELINE), operations)


def test_every_operation_was_generated_and_works(call, operations):
    missing = set()
    for operation in operations:
        try:
            call.module(operation)
        except ModuleNotFoundError:
            missing.add(operation)
    assert missing == set()
    call_health(call)
    call_series(call)
    call_locks(call)
    call_leases(call)
    call_checkpoints(call)
    call_generations(call)
    call_cache(call)
    call_cache_batches(call)
    call_aggregates(call)
    call_operation(call)
    assert call.called == set(operations)


def call_health(call):
    """Health."""
    assert call("getLiveness").status == "ok"
    assert call("getReadiness").status == "ok"


def call_series(call):
    """Push, read, follow and delete."""
    from holdall_client import models

    start = call("getSeriesCursor").cursor
    labels = models.PushedPointLabels.from_dict({"path": 'a"b\\c\n', "job": "x"})
    points = [
        models.PushedPoint(name="requests_total", labels=labels, value=0.1, type_="counter", help_="h"),
        models.PushedPoint(name="load", value=None, special="-Inf", updated_at=NOON),
    ]
    push = models.SeriesPushRequest(role="leader", source="leader_scrape", points=points)
    # The moment of the second lies before every retention: it is dropped as stale.
    counts = call("pushSeries", body=push)
    assert (counts.created, counts.updated, counts.stale) == (1, 0, 1)
    points[1].updated_at = datetime.datetime.now(datetime.timezone.utc)
    counts = call("pushSeries", body=push)
    assert (counts.created, counts.updated, counts.stale) == (1, 1, 0)

    page = call("listSeries", match=['{job="x"}'], limit=10)
    (point,) = page.points
    assert (point.name, point.value, point.type_, point.help_) == ("requests_total", 0.1, "counter", "h")
    assert point.labels.to_dict() == {"path": 'a"b\\c\n', "job": "x"}
    first = call("listSeries", limit=1)
    second = call("listSeries", limit=1, page=first.next_page)
    names = [found.name for found in (*first.points, *second.points)]
    assert names == ["load", "requests_total"]
    assert (first.points[0].value, first.points[0].special) == (None, "-Inf")

    delta = call("getSeriesDelta", cursor=start, wait="1s")
    assert {event.id for event in delta.events} == {first.points[0].id, point.id}
    assert call("getSeriesDelta", cursor=delta.next_cursor).events == []
    event = json.loads(call.first_event("streamSeries", cursor=start).removeprefix("data: "))
    assert len(event["events"]) == 2

    assert math.isclose(call("getSeries", point.id).value, 0.1, rel_tol=0)
    assert call("deleteSeries", point.id).deleted
    problem = call("getSeries", point.id, status=404)
    assert (problem.status, problem.code) == (404, "not_found")
    selection = models.SeriesDeleteRequest(match=['{__name__="load"}'], dry_run=True)
    tried = call("deleteMatchingSeries", body=selection)
    assert (tried.matched, tried.deleted) == (1, 0)
    selection.dry_run = False
    assert call("deleteMatchingSeries", body=selection).deleted == 1
    assert call("listSeries").points == []


def call_locks(call):
    """One lock and many."""
    from holdall_client import models

    job = models.LockKindName.JOB
    assert not call("getLock", job, WEIRD).held
    lock = call("acquireLock", job, WEIRD, body=models.LockRequest(ttl="1m"))
    assert lock.acquired and lock.release_token
    again = call("acquireLock", job, WEIRD, body=models.LockRequest(ttl="1m"))
    assert not again.acquired and not again.release_token
    held = call("getLock", job, WEIRD)
    assert held.held and held.expires_at.tzinfo is not None
    batch = models.LockBatchRequest(keys=[WEIRD, "other"], ttl="1m")
    many = call("acquireLocks", job, body=batch)
    assert many.acquired == ["other"]
    page = call("listLocks", job, limit=1)
    assert page.locks[0].expires_at.tzinfo is not None
    pages = [page, call("listLocks", job, limit=1, page=page.next_page)]
    assert sorted(lock.key for page in pages for lock in page.locks) == sorted([WEIRD, "other"])
    call("releaseLock", job, WEIRD, holdall_release_token=many.release_token, status=409)
    call("releaseLock", job, WEIRD, status=403)
    assert call("releaseLock", job, "other", holdall_release_token=many.release_token).released
    assert call("releaseLock", job, WEIRD, holdall_release_token=lock.release_token).released
    assert not call("getLock", job, WEIRD).held
    assert call("listLocks", job).locks == []
    assert call("acquireLocks", models.LockKindName.DEDUP, body=batch).acquired == [WEIRD, "other"]
    problem = call("acquireLock", job, "k", body=models.LockRequest(ttl="0s"), status=400)
    assert problem.code


def call_leases(call):
    """A lease from its acquisition to its release, and the write that it fences."""
    from holdall_client import models

    ask = models.LeaseAcquireRequest(holder="one", ttl="1m", wait="10ms")
    lease = call("acquireLease", WEIRD, body=ask)
    assert lease.acquired and lease.fencing_token >= 1
    ask.holder = "two"
    other = call("acquireLease", WEIRD, body=ask)
    assert (other.acquired, other.holder) == (False, "one")
    assert call("getLease", WEIRD).holder == "one"
    assert [found.name for found in call("listLeases").leases] == [WEIRD]
    ask.holder = "one"
    assert not call("acquireLease", WEIRD, body=ask).acquired
    ask.takeover = True
    token = call("acquireLease", WEIRD, body=ask).fencing_token
    assert token > lease.fencing_token
    renewed = call("renewLease", WEIRD, body=models.LeaseRenewRequest(fencing_token=token, ttl="2m"))
    assert renewed.expires_at > lease.expires_at
    call("renewLease", WEIRD, body=models.LeaseRenewRequest(fencing_token=token + 1), status=409)
    fenced = {"holdall_lease": "plain-name", "body": models.CheckpointRequest(checkpoint=NOON)}
    plain = call("acquireLease", "plain-name", body=ask).fencing_token
    call("setCheckpoint", "fenced", "r", holdall_fencing_token=plain, **fenced)
    call("setCheckpoint", "fenced", "r", holdall_fencing_token=plain + 1, status=412, **fenced)
    assert call("releaseLease", WEIRD, body=models.LeaseReleaseRequest(fencing_token=token)).released
    call("getLease", WEIRD, status=404)


def call_checkpoints(call):
    """A checkpoint from its first write to its deletion."""
    from holdall_client import models

    ask = models.CheckpointRequest(checkpoint=NOON)
    assert call("setCheckpoint", "org/1", "repo é", body=ask).checkpoint == NOON
    earlier = models.CheckpointRequest(checkpoint=NOON - datetime.timedelta(days=1), if_later=True)
    call("setCheckpoint", "org/1", "repo é", body=earlier, status=409)
    assert call("getCheckpoint", "org/1", "repo é").checkpoint == NOON
    (found,) = call("listCheckpoints", org="org/1").checkpoints
    assert (found.org, found.repo, found.checkpoint) == ("org/1", "repo é", NOON)
    assert call("deleteCheckpoint", "org/1", "repo é").deleted
    call("getCheckpoint", "org/1", "repo é", status=404)


def call_generations(call):
    """Generations, one and many."""
    from holdall_client import models

    assert call("getGeneration", WEIRD).generation == 0
    bumped = call("bumpGeneration", WEIRD)
    assert bumped.generation == 1 and bumped.fence
    batch = models.GenerationBatchRequest(keys=[WEIRD, "other"])
    assert call("snapshotGenerations", body=batch).generations[WEIRD] == bumped
    both = call("bumpGenerations", body=batch).generations.additional_properties
    assert {key: state.generation for key, state in both.items()} == {WEIRD: 2, "other": 1}
    assert call("cleanUpGenerations", body=models.GenerationCleanupRequest(retention="24h")).removed == 0


def call_cache(call):
    """One value, as raw bytes: the fill claim, the put, a hit, an end."""
    from holdall_client import types

    value = bytes(range(256))
    problem = call("getCachedValue", "pages", WEIRD, fill="30s", wait="10ms", status=404)
    assert (problem.code, problem.miss.reason, problem.miss.generation) == ("cache_miss", "absent", 2)
    assert problem.miss.fill_expires_at.tzinfo is not None
    put = {"fill": problem.miss.fill, "ttl": "10m"}
    body = lambda: types.File(payload=io.BytesIO(value))
    held = call("putCachedValue", "pages", WEIRD, body=body(), fence=problem.miss.fence, **put)
    found = call("getCachedValue", "pages", WEIRD)
    assert found.payload.read() == value
    call.nothing("getCachedValue", "pages", WEIRD, if_none_match=f'"{held.etag}"', status=304)
    moved = call("bumpGeneration", WEIRD)
    old = {"fence": problem.miss.fence, "status": 412}
    refused = call("putCachedValue", "pages", WEIRD, body=body(), **old)
    assert (refused.code, refused.moved) == ("generation_moved", moved)
    call("putCachedValue", "pages", WEIRD, body=body(), status=428)
    call("putCachedValue", "pages", WEIRD, body=body(), generation=moved.generation)
    assert call("deleteCachedValue", "pages", WEIRD).deleted
    call("deleteCachedValue", "pages", WEIRD, status=404)


def call_cache_batches(call):
    """Many values, in JSON."""
    from holdall_client import models

    value = bytes(range(256))
    ask = models.CacheGetBatchRequest(keys=["a", "b"], generation_key=WEIRD)
    first, second = call("getCachedValues", "pages", body=ask).values
    assert (first.key, first.found, first.reason) == ("a", False, "absent")
    encoded = base64.b64encode(value).decode()
    item = lambda key, fence: models.CachePutBatchItem(
        key=key, value=encoded, fence=fence, generation_key=WEIRD, content_type="image/png", ttl="10m"
    )
    body = models.CachePutBatchRequest(values=[item("a", first.fence), item("b", "0" * 16)])
    put = call("putCachedValues", "pages", body=body)
    assert put.stored == ["a"]
    (refused,) = put.refused
    assert (refused.key, refused.code, refused.fence) == ("b", "generation_moved", second.fence)
    first, second = call("getCachedValues", "pages", body=ask).values
    assert (first.found, second.found, first.content_type) == (True, False, "image/png")
    assert base64.b64decode(first.value) == value


def call_aggregates(call):
    """Merges that count once, and all reads."""
    from holdall_client import models

    (pipeline,) = call("listPipelines").pipelines
    assert (pipeline.name, pipeline.kind, pipeline.window) == ("views", "sum(integer)", "1h")
    update = models.UpdateItem(entity=WEIRD, delta=3, event_id="one")
    merge = models.MergeRequest(updates=[update])
    merged = call("mergeAggregates", "views", body=merge)
    assert (merged.applied, merged.duplicates, merged.expired) == (1, 0, 0)
    assert call("mergeAggregates", "views", body=merge).duplicates == 1
    notes = json.loads(call.first_event("streamNotes", "views").removeprefix("data: "))["notes"]
    assert [(note["entity"], note["delta"], note["event_id"]) for note in notes] == [(WEIRD, 3, "one")]
    update.delta = 4
    assert call("mergeAggregates", "views", body=merge, status=409).code == "event_conflict"
    numbered = models.MergeRequest(updates=[], producer="worker", seq=1)
    call("mergeAggregates", "views", body=numbered)
    numbered.seq = 3
    assert call("mergeAggregates", "views", body=numbered, status=409).gap.expected == 2
    update.delta = "x"
    refused = call("mergeAggregates", "views", body=merge, status=422)
    assert (refused.code, refused.errors[0].pointer) == ("invalid_updates", "/updates/0/delta")

    held = call("getAggregate", "views", WEIRD)
    assert (held.entity, held.value) == (WEIRD, 3)
    assert held.expires_at > held.bucket.end > held.bucket.start
    bucket = held.bucket.bucket
    assert call("getAggregate", "views", WEIRD, bucket=bucket).value == 3
    assert call("getAggregate", "views", WEIRD, at=held.bucket.start).value == 3
    keys = [models.AggregateKeyItem(entity="none"), models.AggregateKeyItem(entity=WEIRD, bucket=bucket)]
    values = call("getAggregates", "views", body=models.AggregateGetBatchRequest(keys=keys)).values
    assert [value.found for value in values] == [False, True]
    assert values[1].aggregate.value == 3
    ask = models.AggregateWindowRequest(entities=[WEIRD, "none"], buckets=24, bucket=bucket)
    found = call("getAggregateWindows", "views", body=ask)
    assert [window.buckets_found for window in found.windows] == [1, 0]
    assert (found.windows[0].value, found.newest.bucket - found.oldest.bucket) == (3, 23)
    ask = models.AggregateRangeRequest(entity=WEIRD, from_bucket=bucket - 1, to_bucket=bucket)
    (value,) = call("getAggregateRange", "views", body=ask).aggregates
    assert (value.value, value.bucket.bucket) == (3, bucket)
    (value,) = call("listAggregates", "views", limit=10).aggregates
    assert value.entity == WEIRD
    assert call("deleteAggregate", "views", WEIRD, bucket=bucket).deleted == 1
    update.entity, update.delta, update.event_id = "merge", 1, "two"
    call("mergeAggregates", "views", body=merge)
    assert call("getAggregateNamedMerge", "views").value == 1
    assert call("deleteAggregateNamedMerge", "views").deleted == 1
    call("getAggregate", "views", WEIRD, status=404)
    seen = models.EventsSeenRequest(event_ids=["a", "a"])
    assert call("markEventsSeen", body=seen).first_seen == [True, False]


def call_operation(call):
    """What operators ask for."""
    assert call("getStatus").backend == "embedded"
    assert call("flushStore").flushed >= 0
    assert call("collectGarbage").removed >= 0
