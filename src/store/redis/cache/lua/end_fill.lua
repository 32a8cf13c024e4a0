-- Ends the claim of an entry, only that of a token where one is given. Returns whether it existed.
-- KEYS: info, fill_claims, fill_claim_ends. ARGV: now, id, token or empty.
local token = redis.call('HGET', KEYS[2], ARGV[2])
if not token or (ARGV[3] ~= '' and token ~= ARGV[3]) then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
return 1
