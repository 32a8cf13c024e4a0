-- Checks the fence of a write. The last of KEYS is `fences`, a sorted set: the lease, and the lowest
-- fencing token that may still write in this shard. Every shard has one, since the lease itself may lie in
-- another shard.
-- Returns whether the write is refused: its pass has expired, or the lease has a higher token. An empty
-- name stands for a write without a fence.
local function fence_refused(name, token, ends_ms)
  if name == '' then
    return false
  end
  if now_ms >= tonumber(ends_ms) then
    return true
  end
  token = tonumber(token)
  local lowest = tonumber(redis.call('ZSCORE', KEYS[#KEYS], name) or 0)
  if token < lowest then
    return true
  end
  if token > lowest then
    -- The announcement was lost with this shard's data. The pass proves that the token was granted.
    redis.call('ZADD', KEYS[#KEYS], whole(token), name)
  end
  return false
end
