-- Tells a shard the lowest token of a lease that it may accept. KEYS: info, fences. ARGV: now, name,
-- token. Answers a higher one if it knows one.
local token = tonumber(ARGV[3])
local lowest = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or 0)
if lowest > token then
  return whole(lowest)
end
redis.call('ZADD', KEYS[2], whole(token), ARGV[2])
-- No shard gives a token again that was given elsewhere before.
if tonumber(redis.call('HGET', info, 'token')) < token then
  redis.call('HSET', info, 'token', whole(token))
end
return false
