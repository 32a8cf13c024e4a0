-- Writes a checkpoint. Returns what `fence.lua` says, or {not_later | stored, checkpoint}.
-- KEYS: info, checkpoints, checkpoint_writes, checkpoint_keys, fences. ARGV: now, the fence (3), retention
-- in milliseconds, key, millis, nanos, 1 to store it only when no later one is stored, the most checkpoints of the shard. The
-- error LIMIT: there are as many, and nothing was changed.
local refusal = fence_refusal(ARGV[2], ARGV[3], ARGV[4])
if refusal then
  return refusal
end
local key, millis, nanos = ARGV[6], ARGV[7], ARGV[8]
local record, stored_millis, stored_nanos = live_checkpoint(key, tonumber(ARGV[5]))
if ARGV[9] == '1' and record then
  -- Milliseconds and the rest apart: the nanoseconds of today are not exact as a number of Lua.
  local later_by = stored_millis - tonumber(millis)
  if later_by > 0 or (later_by == 0 and stored_nanos > tonumber(nanos)) then
    return { 'not_later', record }
  end
end
if not record
  and redis.call('ZCOUNT', KEYS[3], '(' .. whole(now_ms - tonumber(ARGV[5])), '+inf') >= tonumber(ARGV[10]) then
  return redis.error_reply('LIMIT checkpoints')
end
local written = whole(now_ms)
record = millis .. ' ' .. nanos .. ' ' .. written
redis.call('HSET', KEYS[2], key, record)
redis.call('ZADD', KEYS[3], written, key)
redis.call('ZADD', KEYS[4], 0, key)
return { 'stored', record }
