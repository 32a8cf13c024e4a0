-- Claims each key that is free. Returns for each key {acquired, end}, the end in milliseconds.
-- KEYS: info, locks. ARGV: now, ttl in milliseconds, keys.
-- `locks` is a sorted set of keys by their ends in milliseconds.
local ends = up_ms + tonumber(ARGV[2])
local reply = {}
for i = 3, #ARGV do
  local held_until = redis.call('ZSCORE', KEYS[2], ARGV[i])
  if held_until and tonumber(held_until) > now_ms then
    reply[i - 2] = { 0, whole(tonumber(held_until)) }
  else
    -- Free, or expired and not yet purged.
    redis.call('ZADD', KEYS[2], ends, ARGV[i])
    reply[i - 2] = { 1, whole(ends) }
  end
end
return reply
