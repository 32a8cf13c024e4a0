-- Writes a checkpoint. KEYS: info, checkpoints, checkpoint_ages, checkpoint_keys, fences. ARGV: now,
-- the three of a fence, retention in milliseconds, key, millis, nanos, 1 to refuse to move back.
-- Answers what became of it (refused, not_later, stored) and the checkpoint.
if fence_refused(ARGV[2], ARGV[3], ARGV[4]) then
  return { 'refused', '' }
end
local key, millis, nanos = ARGV[6], ARGV[7], ARGV[8]
local record, held_millis, held_nanos = standing(key, tonumber(ARGV[5]))
if ARGV[9] == '1' and record then
  local by = held_millis - tonumber(millis)
  if by > 0 or (by == 0 and held_nanos > tonumber(nanos)) then
    return { 'not_later', record }
  end
end
local written = whole(now_ms)
record = millis .. ' ' .. nanos .. ' ' .. written
redis.call('HSET', KEYS[2], key, record)
redis.call('ZADD', KEYS[3], written, key)
redis.call('ZADD', KEYS[4], 0, key)
return { 'stored', record }
