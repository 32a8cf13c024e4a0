-- Claims each key that is free. Returns for each key {acquired, end}, the end in milliseconds; or the error
-- LIMIT, when there is no room for all that are free, and then claims none.
-- KEYS: info, locks, lock_tokens. ARGV: now, ttl in milliseconds, the most locks of the shard, the token under which
-- they are held, keys. `locks` is a sorted set of keys by their ends in milliseconds, `lock_tokens` a hash of their
-- tokens.
local ends = up_ms + tonumber(ARGV[2])
local new, is_new = 0, {}
for i = 5, #ARGV do
  local held_until = redis.call('ZSCORE', KEYS[2], ARGV[i])
  -- Free, or expired and not yet purged.
  if not (held_until and tonumber(held_until) > now_ms) and not is_new[ARGV[i]] then
    new, is_new[ARGV[i]] = new + 1, true
  end
end
if new > 0 and redis.call('ZCOUNT', KEYS[2], '(' .. whole(now_ms), '+inf') + new > tonumber(ARGV[3]) then
  return redis.error_reply('LIMIT locks')
end
local reply = {}
for i = 5, #ARGV do
  if is_new[ARGV[i]] then
    -- A key that is listed twice is acquired once.
    is_new[ARGV[i]] = nil
    redis.call('ZADD', KEYS[2], ends, ARGV[i])
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[4])
    reply[i - 4] = { 1, whole(ends) }
  else
    reply[i - 4] = { 0, whole(tonumber(redis.call('ZSCORE', KEYS[2], ARGV[i]))) }
  end
end
return reply
