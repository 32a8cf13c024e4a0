-- Returns the numbers of live values, event ids and producers.
-- KEYS: info, aggregates, aggregate_ends, event_id_ends, producer_ends. ARGV: now.
local now = whole(now_ms)
return {
  redis.call('HLEN', KEYS[2]) - redis.call('ZCOUNT', KEYS[3], '-inf', now),
  redis.call('ZCOUNT', KEYS[4], '(' .. now, '+inf'),
  redis.call('ZCOUNT', KEYS[5], '(' .. now, '+inf'),
}
