-- Deletes a checkpoint. KEYS: info, checkpoints, checkpoint_ages, checkpoint_keys, fences. ARGV: now,
-- the three of a fence, retention in milliseconds, key. Answers refused, absent or deleted.
if fence_refused(ARGV[2], ARGV[3], ARGV[4]) then
  return 'refused'
end
local record = standing(ARGV[6], tonumber(ARGV[5]))
redis.call('HDEL', KEYS[2], ARGV[6])
redis.call('ZREM', KEYS[3], ARGV[6])
redis.call('ZREM', KEYS[4], ARGV[6])
return record and 'deleted' or 'absent'
