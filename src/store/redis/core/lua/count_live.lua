-- Counts live entries. KEYS: info, a sorted set of entries by time in milliseconds.
-- ARGV: now, how long after its time an entry expires.
return redis.call('ZCOUNT', KEYS[2], '(' .. whole(now_ms - tonumber(ARGV[2])), '+inf')
