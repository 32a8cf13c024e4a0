-- Tells how a shard stands. Answers {epoch, seq, live, tombstones, held, expired just now}.
return { epoch, whole(seq), live, redis.call('ZCARD', KEYS[6]), held, expired }
