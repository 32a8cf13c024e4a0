-- Counts what is not over. KEYS: info, a sorted set by time in milliseconds. ARGV: now, how long after
-- its time a thing is over.
return redis.call('ZCOUNT', KEYS[2], '(' .. whole(now_ms - tonumber(ARGV[2])), '+inf')
