// Calls every operation of a running server with the types that openapi-typescript generated.
//
// The address is the argument. Prints the called operations as JSON, a list of "METHOD path".
// An answer that is not what it should be ends the program with an error.

import assert from "node:assert/strict";
import createClient, { type Middleware } from "openapi-fetch";
import type { paths } from "./schema.js";

const [, , baseUrl] = process.argv;
assert(baseUrl, "the address of the server is missing");
const client = createClient<paths>({ baseUrl });

const called = new Set<string>();
const remember: Middleware = {
  onRequest({ request, schemaPath }) {
    called.add(`${request.method} ${schemaPath}`);
    return undefined;
  },
};
client.use(remember);

const weird = "a/b c%25?é";
const noon = "2026-01-02T12:00:00Z";

/** The data of an answer that has to be a success. */
function data<T, E>(answer: { data?: T; error?: E; response: Response }): NonNullable<T> {
  assert(answer.data, `${answer.response.status} ${JSON.stringify(answer.error)}`);
  return answer.data;
}

/** The typed problem of an answer that has to be one, with the status that it has to have. */
function problem<T, E>(answer: { data?: T; error?: E; response: Response }, status: number): NonNullable<E> {
  assert.equal(answer.response.status, status);
  assert(answer.error);
  return answer.error;
}

async function health() {
  assert.equal(data(await client.GET("/livez")).status, "ok");
  assert.equal(data(await client.GET("/readyz")).status, "ok");
}

async function series() {
  const start = data(await client.GET("/v1/series/cursor")).cursor;
  const labels = { path: 'a"b\\c\n', job: "x" };
  const body = {
    role: "leader",
    source: "leader_scrape",
    points: [
      { name: "requests_total", labels, value: 0.1, type: "counter", help: "h" },
      { name: "load", value: null, special: "+Inf" },
    ],
  };
  const counts = data(await client.POST("/v1/series", { body }));
  assert.deepEqual(counts, { created: 2, updated: 0, stale: 0 });

  const query = { "match[]": ['{job="x"}'], limit: 10 };
  const [point] = data(await client.GET("/v1/series", { params: { query } })).points;
  assert(point);
  assert.deepEqual([point.name, point.labels, point.value, point.type], ["requests_total", labels, 0.1, "counter"]);

  const delta = data(await client.GET("/v1/series/delta", { params: { query: { cursor: start, wait: "1s" } } }));
  assert.deepEqual(delta.events.map((event) => event.point?.special).sort(), ["+Inf", undefined]);
  await stream(start);

  const params = { path: { id: point.id } };
  assert.equal(data(await client.GET("/v1/series/{id}", { params })).value, 0.1);
  assert.equal(data(await client.DELETE("/v1/series/{id}", { params })).deleted, true);
  assert.equal(problem(await client.GET("/v1/series/{id}", { params }), 404).code, "not_found");
  const deletion = data(await client.POST("/v1/series/delete", { body: { match: ["load"] } }));
  assert.deepEqual(deletion, { matched: 1, deleted: 1 });
}

async function stream(cursor: string) {
  const answer = await client.GET("/v1/series/stream", { params: { query: { cursor } }, parseAs: "stream" });
  assert.match(await firstEvent(data(answer)), /^event: change\nid: .+\ndata: \{/);
}

async function firstEvent(body: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n\n")) {
    const { value, done } = await reader.read();
    assert(!done, "the stream ended");
    text += value;
  }
  await reader.cancel();
  return text;
}

async function locks() {
  const path = { kind: "job", key: weird } as const;
  const ask = { params: { path }, body: { ttl: "1m" } };
  const lock = data(await client.POST("/v1/locks/{kind}/{key}", ask));
  assert(lock.acquired && lock.release_token);
  const again = data(await client.POST("/v1/locks/{kind}/{key}", ask));
  assert(!again.acquired && !again.release_token);
  assert.equal(data(await client.GET("/v1/locks/{kind}/{key}", { params: { path } })).held, true);
  const batch = { params: { path: { kind: "job" as const } }, body: { keys: [weird, "other"], ttl: "1m" } };
  const many = data(await client.POST("/v1/locks/{kind}", batch));
  assert.deepEqual(many.acquired, ["other"]);
  const kind = { params: { path: { kind: "job" as const }, query: { limit: 2 } } };
  const listed = data(await client.GET("/v1/locks/{kind}", kind));
  assert.deepEqual(listed.locks.map((held) => held.key).sort(), [weird, "other"].sort());
  assert(listed.next_page === undefined && Date.parse(listed.locks[0]?.expires_at ?? "") > 0);
  const release = (token?: string | null) =>
    client.DELETE("/v1/locks/{kind}/{key}", { params: { path, header: token ? { "Holdall-Release-Token": token } : {} } });
  problem(await release(), 403);
  problem(await release(many.release_token), 409);
  assert.equal(data(await release(lock.release_token)).released, true);
  assert.equal(data(await client.GET("/v1/locks/{kind}/{key}", { params: { path } })).held, false);
}

async function leases() {
  const params = { path: { name: weird } };
  const body = { holder: "one", ttl: "1m" };
  const lease = data(await client.POST("/v1/leases/{name}/acquire", { params, body }));
  assert(lease.acquired && lease.fencing_token !== undefined);
  assert.equal(data(await client.POST("/v1/leases/{name}/acquire", { params, body })).acquired, false);
  const takeover = { params, body: { ...body, takeover: true } };
  const fencing_token = data(await client.POST("/v1/leases/{name}/acquire", takeover)).fencing_token;
  assert(fencing_token !== undefined && fencing_token !== null && fencing_token > lease.fencing_token);
  assert.equal(data(await client.GET("/v1/leases/{name}", { params })).holder, "one");
  assert.deepEqual(data(await client.GET("/v1/leases")).leases.map((held) => held.name), [weird]);
  const renewal = { params, body: { fencing_token, ttl: "2m" } };
  assert.equal(data(await client.POST("/v1/leases/{name}/renew", renewal)).fencing_token, fencing_token);
  const stranger = { params, body: { fencing_token: fencing_token + 1 } };
  problem(await client.POST("/v1/leases/{name}/release", stranger), 409);
  const release = { params, body: { fencing_token } };
  assert.equal(data(await client.POST("/v1/leases/{name}/release", release)).released, true);
}

async function checkpoints() {
  const params = { path: { org: "org/1", repo: "repo é" } };
  const written = data(await client.PUT("/v1/checkpoints/{org}/{repo}", { params, body: { checkpoint: noon } }));
  assert.equal(Date.parse(written.checkpoint), Date.parse(noon));
  const earlier = { checkpoint: "2025-01-01T00:00:00Z", if_later: true };
  problem(await client.PUT("/v1/checkpoints/{org}/{repo}", { params, body: earlier }), 409);
  assert.equal(data(await client.GET("/v1/checkpoints/{org}/{repo}", { params })).repo, "repo é");
  const listed = data(await client.GET("/v1/checkpoints", { params: { query: { org: "org/1" } } }));
  assert.equal(listed.checkpoints.length, 1);
  assert.equal(data(await client.DELETE("/v1/checkpoints/{org}/{repo}", { params })).deleted, true);
}

async function generations() {
  const params = { path: { key: weird } };
  assert.equal(data(await client.GET("/v1/generations/{key}", { params })).generation, 0);
  const bumped = data(await client.POST("/v1/generations/{key}/bump", { params }));
  assert.equal(bumped.generation, 1);
  const body = { keys: [weird, "other"] };
  const seen = data(await client.POST("/v1/batch/generations/snapshot", { body })).generations;
  assert.deepEqual(seen[weird], bumped);
  const both = data(await client.POST("/v1/batch/generations/bump", { body })).generations;
  assert.deepEqual([both[weird]?.generation, both["other"]?.generation], [2, 1]);
  const cleanup = await client.POST("/v1/batch/generations/cleanup", { body: { retention: "24h" } });
  assert.deepEqual(data(cleanup), { removed: 0 });
}

const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);

/** The content type of a body of raw bytes, and its sending as it is. The document knows bytes as text. */
const raw = {
  body: bytes as unknown as string,
  bodySerializer: (body: unknown) => body as Uint8Array<ArrayBuffer>,
  headers: { "Content-Type": "application/octet-stream" },
};

async function cache() {
  const path = { namespace: "pages", key: weird };
  const wish = { params: { path, query: { wait: "10ms", fill: "30s" } }, parseAs: "arrayBuffer" as const };
  const miss = problem(await client.GET("/v1/cache/{namespace}/{key}", wish), 404).miss;
  assert(miss?.fill && miss.reason === "absent");
  const put = { path, query: { fence: miss.fence, fill: miss.fill, ttl: "10m" } };
  const held = data(await client.PUT("/v1/cache/{namespace}/{key}", { params: put, ...raw }));
  const lookup = { params: { path }, parseAs: "arrayBuffer" as const };
  const hit = await client.GET("/v1/cache/{namespace}/{key}", lookup);
  assert.deepEqual(new Uint8Array(data(hit)), bytes);
  assert.equal(hit.response.headers.get("etag"), `"${held.etag}"`);
  const known = { ...lookup, headers: { "If-None-Match": `"${held.etag}"` } };
  assert.equal((await client.GET("/v1/cache/{namespace}/{key}", known)).response.status, 304);

  const moved = data(await client.POST("/v1/generations/{key}/bump", { params: { path: { key: weird } } }));
  const late = await client.PUT("/v1/cache/{namespace}/{key}", { params: put, ...raw });
  assert.deepEqual(problem(late, 412).moved, moved);
  const again = { path, query: { fence: moved.fence } };
  data(await client.PUT("/v1/cache/{namespace}/{key}", { params: again, ...raw }));
  assert.equal(data(await client.DELETE("/v1/cache/{namespace}/{key}", { params: { path } })).deleted, true);
}

async function cacheBatches() {
  const params = { path: { namespace: "pages" } };
  const ask = { params, body: { keys: ["a", "b"], generation_key: weird } };
  const [none] = data(await client.POST("/v1/batch/cache/{namespace}/get", ask)).values;
  assert(none && !none.found);
  const value = Buffer.from(bytes).toString("base64");
  const item = { value, fence: none.fence, generation_key: weird };
  const body = { values: [{ key: "a", ...item }, { key: "b", ...item, fence: "0".repeat(16) }] };
  const put = data(await client.POST("/v1/batch/cache/{namespace}/put", { params, body }));
  assert.deepEqual(put.stored, ["a"]);
  assert.deepEqual(put.refused.map((refusal) => refusal.code), ["generation_moved"]);
  const found = data(await client.POST("/v1/batch/cache/{namespace}/get", ask)).values;
  assert.deepEqual(found.map((item) => item.value), [value, undefined]);
}

async function aggregates() {
  const [pipeline] = data(await client.GET("/v1/pipelines")).pipelines;
  assert(pipeline?.name === "views" && pipeline.kind === "sum(integer)");
  const params = { path: { pipeline: "views" } };
  const merge = "/v1/aggregates/{pipeline}/merge";
  const update = { entity: weird, delta: 3, event_id: "one" };
  const merged = data(await client.POST(merge, { params, body: { updates: [update] } }));
  assert.deepEqual(merged, { applied: 1, duplicates: 0, expired: 0 });
  const again = data(await client.POST(merge, { params, body: { updates: [update] } }));
  assert.deepEqual(again, { applied: 0, duplicates: 1, expired: 0 });
  const notes = await client.GET("/v1/pipelines/{pipeline}/stream", { params, parseAs: "stream" });
  assert.match(await firstEvent(data(notes)), /^event: notes\nid: .+\ndata: \{"notes":\[\{/);
  data(await client.POST(merge, { params, body: { updates: [], producer: "worker", seq: 1 } }));
  const late = await client.POST(merge, { params, body: { updates: [], producer: "worker", seq: 3 } });
  assert.equal(problem(late, 409).gap?.expected, 2);

  const path = { pipeline: "views", entity: weird };
  const one = "/v1/aggregates/{pipeline}/{entity}";
  const held = data(await client.GET(one, { params: { path } }));
  assert(held.value === 3 && held.bucket);
  const bucket = held.bucket.bucket;
  const keys = [{ entity: "none" }, { entity: weird, bucket }];
  const { values } = data(await client.POST("/v1/batch/aggregates/{pipeline}/get", { params, body: { keys } }));
  assert.deepEqual(values.map((value) => value.aggregate?.value), [undefined, 3]);
  const ask = { entities: [weird], buckets: 24, bucket };
  const window = data(await client.POST("/v1/batch/aggregates/{pipeline}/window", { params, body: ask }));
  assert.deepEqual(window.windows, [{ entity: weird, buckets_found: 1, value: 3 }]);
  const range = { entity: weird, from_bucket: bucket };
  const found = data(await client.POST("/v1/batch/aggregates/{pipeline}/range", { params, body: range }));
  assert.deepEqual(found.aggregates.map((value) => value.value), [3]);
  const listed = data(await client.GET("/v1/aggregates/{pipeline}", { params: { ...params, query: { limit: 10 } } }));
  assert.deepEqual(listed.aggregates.map((value) => value.entity), [weird]);
  assert.equal(data(await client.DELETE(one, { params: { path, query: { bucket } } })).deleted, 1);
  const named = { entity: "merge", delta: 1 };
  data(await client.POST(merge, { params, body: { updates: [named] } }));
  assert.equal(data(await client.GET(merge, { params })).value, 1);
  assert.equal(data(await client.DELETE(merge, { params })).deleted, 1);
  const seen = data(await client.POST("/v1/events/seen", { body: { event_ids: ["a", "a"] } }));
  assert.deepEqual(seen.first_seen, [true, false]);
}

async function operation() {
  assert.equal(data(await client.GET("/v1/status")).backend, "embedded");
  assert(data(await client.POST("/v1/admin/flush")).flushed >= 0);
  assert(data(await client.POST("/v1/admin/gc")).removed >= 0);
}

for (const part of [health, series, locks, leases, checkpoints, generations, cache, cacheBatches, aggregates, operation]) {
  await part();
}
console.log(JSON.stringify([...called].sort()));
process.exit(0);
