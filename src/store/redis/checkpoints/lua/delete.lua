-- Deletes a checkpoint. Returns refused, absent or deleted.
-- KEYS: info, checkpoints, checkpoint_writes, checkpoint_keys, fences. ARGV: now, the fence (3), retention
-- in milliseconds, key.
if fence_refused(ARGV[2], ARGV[3], ARGV[4]) then
  return 'refused'
end
local record = live_checkpoint(ARGV[6], tonumber(ARGV[5]))
redis.call('HDEL', KEYS[2], ARGV[6])
redis.call('ZREM', KEYS[3], ARGV[6])
redis.call('ZREM', KEYS[4], ARGV[6])
return record and 'deleted' or 'absent'
