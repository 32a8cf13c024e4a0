-- Reads checkpoints. KEYS[2] is `checkpoints`, a hash: the key, and "millis nanos written" (the checkpoint
-- in milliseconds since 1970 and the nanoseconds above them; when it was written in milliseconds).
-- Returns a checkpoint that has not expired: the record, and its first two parts.
local function live_checkpoint(key, retention_ms)
  local record = redis.call('HGET', KEYS[2], key)
  if not record then
    return nil
  end
  local millis, nanos, written = string.match(record, '^(%-?%d+) (%d+) (%d+)$')
  if tonumber(written) + retention_ms <= now_ms then
    return nil
  end
  return record, tonumber(millis), tonumber(nanos)
end
