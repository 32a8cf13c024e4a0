-- Takes the turn at filling an entry, unless somebody has it; gives whether, and when it ends.
-- KEYS: info, fills, fill_ends. ARGV: now, id, token, ttl in milliseconds, the most turns.
-- Turns are a hash of tokens and a sorted set of their ends in milliseconds.
local id, token = ARGV[2], ARGV[3]
local held = tonumber(redis.call('ZSCORE', KEYS[3], id) or 0)
if held > now_ms then
  -- The same token: the claim was sent twice.
  local mine = redis.call('HGET', KEYS[2], id) == token
  return { mine and 1 or 0, held }
end
local ends = up_ms + tonumber(ARGV[4])
-- Beyond the most, nobody else knows of the turn.
if held > 0 or redis.call('ZCARD', KEYS[3]) < tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[2], id, token)
  redis.call('ZADD', KEYS[3], whole(ends), id)
end
return { 1, ends }
