-- Lists checkpoints in the order of their keys. Returns where to continue, empty at the end, and key, checkpoint, key,
-- checkpoint.
-- KEYS: info, checkpoints, checkpoint_keys. ARGV: now, retention in milliseconds, where to end as ZRANGEBYLEX takes it,
-- where to begin, the most checkpoints, the most keys to look at.
local retention_ms, limit, step = tonumber(ARGV[2]), tonumber(ARGV[5]), tonumber(ARGV[6])
local reply, last = {}, nil
local keys = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[4], ARGV[3], 'LIMIT', 0, step)
for _, key in ipairs(keys) do
  if #reply == 2 * limit then
    break
  end
  last = key
  -- Expired checkpoints keep their keys until they are purged.
  local record = live_checkpoint(key, retention_ms)
  if record then
    reply[#reply + 1] = key
    reply[#reply + 1] = record
  end
end
return { #keys == step and '(' .. last or '', reply }
