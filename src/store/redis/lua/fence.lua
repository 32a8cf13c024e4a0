-- Fences: who may still write here under a lease. The last of KEYS is `fences`, a sorted set: the
-- lease, and the lowest token that is still accepted. Every shard has one, since the lease itself
-- may lie in another shard.
-- Tells whether a write is refused: its pass is over, or the lease went on to a higher token. An
-- empty name is no fence.
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
    redis.call('ZADD', KEYS[#KEYS], whole(token), name)
  end
  return false
end
