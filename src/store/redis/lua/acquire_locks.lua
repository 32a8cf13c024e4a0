-- Claims every key that is free. KEYS: info, locks. ARGV: now, ttl in milliseconds, keys.
-- Locks are one sorted set: the key, and when it ends in milliseconds.
local ttl = tonumber(ARGV[2])
local ends = up_ms + ttl
local answer = {}
for i = 3, #ARGV do
  local held = redis.call('ZSCORE', KEYS[2], ARGV[i])
  if held and tonumber(held) > now_ms then
    answer[i - 2] = { 0, whole(tonumber(held)) }
  else
    redis.call('ZADD', KEYS[2], ends, ARGV[i])
    answer[i - 2] = { 1, whole(ends) }
  end
end
return answer
