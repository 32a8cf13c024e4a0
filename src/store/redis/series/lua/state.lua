-- Returns the state of a shard: {epoch, seq, live, tombstones, expired just now}.
return { epoch, whole(seq), redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[6]), expired }
