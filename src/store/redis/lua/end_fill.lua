-- Ends the turn at filling an entry, that of a token where one is given; tells whether it was there.
-- KEYS: info, fills, fill_ends. ARGV: now, id, token or nothing.
local held = redis.call('HGET', KEYS[2], ARGV[2])
if not held or (ARGV[3] ~= '' and held ~= ARGV[3]) then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
return 1
