-- Claims the fill of an entry, unless another caller has the claim. Returns {granted, end}.
-- KEYS: info, fill_claims, fill_claim_ends. ARGV: now, id, token, ttl in milliseconds, the most claims.
-- `fill_claims` is a hash of tokens by entry, `fill_claim_ends` a sorted set of entries by the end of their
-- claim in milliseconds.
local id, token = ARGV[2], ARGV[3]
local held_until = tonumber(redis.call('ZSCORE', KEYS[3], id) or 0)
if held_until > now_ms then
  -- The same token: the client sent the claim twice.
  local own = redis.call('HGET', KEYS[2], id) == token
  return { own and 1 or 0, held_until }
end
local ends = up_ms + tonumber(ARGV[4])
-- Beyond the limit a claim is granted, but not remembered: several callers may fill the entry then.
if held_until > 0 or redis.call('ZCARD', KEYS[3]) < tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[2], id, token)
  redis.call('ZADD', KEYS[3], whole(ends), id)
end
return { 1, ends }
