-- Forgets keys that were not bumped for a time. Returns how many.
-- KEYS: info, generations, generation_bumps. ARGV: now, the time in microseconds, the most keys.
local cutoff = whole(now_us - tonumber(ARGV[2]))
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', cutoff, 'LIMIT', 0, ARGV[3])
if #due == 0 then
  return 0
end
local records = redis.call('HMGET', KEYS[2], unpack(due))
for i = 1, #due do
  local _, bump = parts_of(records[i])
  minimum_fence = math.max(minimum_fence, bump)
end
-- The minimum fence first: a forgotten key must not make an old fence valid again.
redis.call('HSET', info, 'minimum_fence', whole(minimum_fence))
local removed = redis.call('HDEL', KEYS[2], unpack(due))
redis.call('HSET', info, 'generation_count', generation_count - removed)
redis.call('ZREM', KEYS[3], unpack(due))
return #due
