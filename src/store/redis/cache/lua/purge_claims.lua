-- Removes expired fill claims. Returns how many.
-- KEYS: info, fill_claims, fill_claim_ends. ARGV: now, the most claims.
local expired = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now_ms), 'LIMIT', 0, ARGV[2])
if #expired > 0 then
  redis.call('HDEL', KEYS[2], unpack(expired))
  redis.call('ZREM', KEYS[3], unpack(expired))
end
return #expired
