-- Returns checkpoints in the order of their keys: key, checkpoint, key, checkpoint.
-- KEYS: info, checkpoints, checkpoint_keys. ARGV: now, retention in milliseconds, where to begin and to end
-- as ZRANGEBYLEX takes it, the most checkpoints.
local retention_ms, from, to, limit = tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local reply = {}
while #reply < 2 * limit do
  local keys = redis.call('ZRANGEBYLEX', KEYS[3], from, to, 'LIMIT', 0, math.min(limit, 1000))
  for _, key in ipairs(keys) do
    -- Expired checkpoints keep their keys until they are purged.
    local record = live_checkpoint(key, retention_ms)
    if record and #reply < 2 * limit then
      reply[#reply + 1] = key
      reply[#reply + 1] = record
    end
  end
  if #keys == 0 then
    break
  end
  from = '(' .. keys[#keys]
end
return reply
