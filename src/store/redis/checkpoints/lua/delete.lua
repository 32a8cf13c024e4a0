-- Deletes a checkpoint. Returns what `fence.lua` says, or whether there was one.
-- KEYS: info, checkpoints, checkpoint_writes, checkpoint_keys, fences. ARGV: now, the fence (3), retention
-- in milliseconds, key.
local refusal = fence_refusal(ARGV[2], ARGV[3], ARGV[4])
if refusal then
  return refusal
end
local record = live_checkpoint(ARGV[6], tonumber(ARGV[5]))
redis.call('HDEL', KEYS[2], ARGV[6])
redis.call('ZREM', KEYS[3], ARGV[6])
redis.call('ZREM', KEYS[4], ARGV[6])
return record and 1 or 0
