-- Checks the fence of a write, after `epoch_check.lua`. The last of KEYS is `fences`, a sorted set: the lease, and the
-- lowest fencing token that may still write in this shard. Every shard has one, since the lease itself may lie in
-- another shard.
-- Returns nil where the write may happen, else what the script returns: REFUSED when its pass has expired or the lease
-- has a higher token; OUTDATED, epoch, when that began, if the pass is from before this epoch. `pass_of` is when the
-- pass ends in milliseconds and, after a blank, the epoch that its caller knew. An empty name stands for a write
-- without a fence.
local function fence_refusal(name, token, pass_of)
  if name == '' then
    return nil
  end
  local ends_ms, known_epoch = string.match(pass_of, '^(%d+) (%x*)$')
  if now_ms >= tonumber(ends_ms) then
    return { ok = 'REFUSED' }
  end
  token = tonumber(token)
  local lowest = tonumber(redis.call('ZSCORE', KEYS[#KEYS], name) or 0)
  if token < lowest then
    return { ok = 'REFUSED' }
  end
  if known_epoch ~= epoch then
    -- This shard may have lost the announcement of a higher token. The lease's shard knows it, and is asked again.
    return { ok = 'OUTDATED ' .. epoch .. ' ' .. redis.call('HGET', info, 'epoch_started') }
  end
  if token > lowest then
    -- The announcement was lost with this shard's data. The pass proves that the token was granted.
    redis.call('ZADD', KEYS[#KEYS], whole(token), name)
  end
  return nil
end
