-- Writes a lease that lasts `ttl` from now. KEYS[3] is `lease_ends`, KEYS[4] `lease_names`.
local function put_lease(name, token, ttl, nanos, holder)
  local ends = up_ms + ttl
  local record = token .. ' ' .. whole(ends) .. ' ' .. whole(ttl) .. ' ' .. nanos .. ' ' .. holder
  redis.call('HSET', KEYS[2], name, record)
  redis.call('ZADD', KEYS[3], whole(ends), name)
  redis.call('ZADD', KEYS[4], 0, name)
  return record
end
local function drop_lease(name)
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  redis.call('ZREM', KEYS[4], name)
end
-- Gives a token above all that this shard knows of, and above `above`.
local function next_token(name, above)
  local last = tonumber(redis.call('HGET', info, 'token'))
  local lowest = tonumber(redis.call('ZSCORE', KEYS[5], name) or 0)
  local token = math.max(last + 1, lowest + 1, above + 1, now_us)
  -- The fence first: if that fails, nothing has happened.
  redis.call('ZADD', KEYS[5], whole(token), name)
  redis.call('HSET', info, 'token', whole(token))
  return whole(token)
end
