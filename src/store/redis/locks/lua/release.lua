-- Frees a lock that is held under the token. Returns whether it was.
-- KEYS: info, locks, lock_tokens, lock_names. ARGV: now, key, token (or empty: any).
local held_until = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not (held_until and tonumber(held_until) > now_ms) then
  return 0
end
if ARGV[3] ~= '' and redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[3] then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[2])
return 1
