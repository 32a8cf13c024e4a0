-- Issues a token above all that this shard knows, and above `above`. KEYS[5] is `fences`.
local function next_token(name, above)
  local last = tonumber(redis.call('HGET', info, 'last_token'))
  local lowest = tonumber(redis.call('ZSCORE', KEYS[5], name) or 0)
  -- At least the time, so that tokens also grow when the shard lost the last ones.
  local token = math.max(last + 1, lowest + 1, above + 1, now_us)
  -- The fence first: if Redis is full and refuses this, nothing was changed.
  redis.call('ZADD', KEYS[5], whole(token), name)
  redis.call('HSET', info, 'last_token', whole(token))
  return whole(token)
end
