-- Counts generations, cached values and what these take. KEYS: info, generations, cache.
local bytes = redis.call('HGET', info, 'cache_bytes') or 0
return { redis.call('HLEN', KEYS[2]), redis.call('HLEN', KEYS[3]), tonumber(bytes) }
