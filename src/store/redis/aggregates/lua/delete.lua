-- Deletes the first values of a range of keys. Returns what `fence.lua` says, or how many were live, and 1 if there may be
-- more. KEYS: info, aggregates, aggregate_keys, aggregate_ends, fences. ARGV: now, the fence (3), where the range begins
-- and ends as ZRANGEBYLEX takes it, the most values.
local refusal = fence_refusal(ARGV[2], ARGV[3], ARGV[4])
if refusal then
  return refusal
end
local keys = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[5], ARGV[6], 'LIMIT', 0, ARGV[7])
if #keys == 0 then
  return { 0, 0 }
end
local deleted = 0
for _, ends in ipairs(redis.call('ZMSCORE', KEYS[4], unpack(keys))) do
  if not ends or tonumber(ends) > now_ms then
    deleted = deleted + 1
  end
end
redis.call('HDEL', KEYS[2], unpack(keys))
redis.call('ZREM', KEYS[3], unpack(keys))
redis.call('ZREM', KEYS[4], unpack(keys))
return { deleted, #keys == tonumber(ARGV[7]) and 1 or 0 }
