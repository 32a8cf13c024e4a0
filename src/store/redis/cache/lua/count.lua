-- Returns how many values are cached, and their size in bytes. KEYS: info, cache. ARGV: now.
local bytes = redis.call('HGET', info, 'cache_bytes') or 0
return { redis.call('HLEN', KEYS[2]), tonumber(bytes) }
