-- Room that is reserved. What was not used in time is free again.
local own = redis.call('HMGET', info, 'held', 'quota', 'quota_epoch')
local held = tonumber(own[1] or 0)
if held > 0 and redis.call('HLEN', KEYS[7]) == 0 then
  -- They were lost alone, see begin.lua.
  held = 0
  redis.call('HSET', info, 'held', 0)
end

-- Ends the reservation of a batch; gives how much it was, and how many series the batch had found.
local function end_hold(hold)
  local value = redis.call('HGET', KEYS[7], hold)
  if not value then
    return 0, 0
  end
  local size, known = string.match(value, '^(%d+):(%d+)$')
  redis.call('HDEL', KEYS[7], hold)
  redis.call('ZREM', KEYS[8], hold)
  held = held - tonumber(size)
  redis.call('HSET', info, 'held', whole(held))
  return tonumber(size), tonumber(known)
end

local function begin_hold(hold, size, known, ends_ms)
  if size > 0 or known > 0 then
    held = held + size
    redis.call('HSET', info, 'held', whole(held))
    redis.call('HSET', KEYS[7], hold, whole(size) .. ':' .. whole(known))
    redis.call('ZADD', KEYS[8], ends_ms, hold)
  end
end

for _, hold in ipairs(redis.call('ZRANGEBYSCORE', KEYS[8], '-inf', whole(now_ms))) do
  end_hold(hold)
end
local live = redis.call('HLEN', KEYS[2])
local quota = tonumber(own[2] or 0)
-- Of an earlier life: some of it may have been given back, and that was lost.
local quota_lost = own[3] ~= epoch
if quota_lost then
  quota = math.min(quota, live + held)
end
