-- Reads generations. KEYS[2] is `generations`, a hash: the key, and "number:bump", its generation and the
-- sequence number of its last bump.
-- Fields of info: last_bump, the sequence number of the shard's last bump; minimum_fence, below which no
-- fence is valid; generation_count, the number of keys; cache_bytes, read here for `entry.lua`.
local numbers =
  redis.call('HMGET', info, 'last_bump', 'minimum_fence', 'generation_count', 'cache_bytes')
local last_bump, minimum_fence = tonumber(numbers[1]), tonumber(numbers[2])
local generation_count = redis.call('HLEN', KEYS[2])
if generation_count ~= tonumber(numbers[3] or 0) then
  -- The hash was lost alone: it was deleted, or evicted by a Redis that makes room that way. A missing key
  -- looks like one that was never bumped, so all earlier fences become invalid.
  last_bump = math.max(last_bump + 1, now_us)
  minimum_fence = last_bump
  redis.call('HSET', info, 'last_bump', whole(last_bump), 'minimum_fence', whole(minimum_fence),
    'generation_count', generation_count)
end
-- Returns the number and the last bump of a key's record.
local function parts_of(record)
  if not record then
    return 0, 0
  end
  local number, bump = string.match(record, '^(%d+):(%d+)$')
  return tonumber(number), tonumber(bump)
end
