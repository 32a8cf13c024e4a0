-- Returns the state of a shard: {epoch, seq, live, tombstones, bytes, bytes of tombstones, expired just now}.
local live, deleted = redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[6])
return { epoch, whole(seq), live, deleted, whole(math.max(live_bytes, 0)), whole(math.max(tombstone_bytes, 0)), expired }
