-- Announces the lowest token of a lease that this shard may accept. Returns a higher one if it knows one.
-- KEYS: info, fences. ARGV: now, name, token.
local token = tonumber(ARGV[3])
local lowest = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or 0)
if lowest > token then
  return whole(lowest)
end
redis.call('ZADD', KEYS[2], whole(token), ARGV[2])
-- Tokens grow over all leases of all shards: this shard issues none at or below the announced one.
if tonumber(redis.call('HGET', info, 'last_token')) < token then
  redis.call('HSET', info, 'last_token', whole(token))
end
return false
