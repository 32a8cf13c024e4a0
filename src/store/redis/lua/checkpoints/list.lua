-- Reads checkpoints in the order of their keys. KEYS: info, checkpoints, checkpoint_keys. ARGV: now,
-- retention in milliseconds, where to begin and to end as ZRANGEBYLEX has it, at most how many.
-- Answers key, checkpoint, key, checkpoint.
local retention_ms, from, to, limit = tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local answer = {}
while #answer < 2 * limit do
  local keys = redis.call('ZRANGEBYLEX', KEYS[3], from, to, 'LIMIT', 0, math.min(limit, 1000))
  for _, key in ipairs(keys) do
    local record = standing(key, retention_ms)
    if record and #answer < 2 * limit then
      answer[#answer + 1] = key
      answer[#answer + 1] = record
    end
  end
  if #keys == 0 then
    break
  end
  from = '(' .. keys[#keys]
end
return answer
