-- Writes and deletes leases. KEYS[3] is `lease_ends`, a sorted set of names by their ends in milliseconds;
-- KEYS[4] is `lease_names`, a sorted set of names in their order.

-- Writes a lease that lasts `ttl` from now; returns its record.
local function write_lease(name, token, ttl, nanos, access, holder)
  local ends = up_ms + ttl
  local record = token .. ' ' .. whole(ends) .. ' ' .. whole(ttl) .. ' ' .. nanos .. ' ' .. access .. ' ' .. holder
  redis.call('HSET', KEYS[2], name, record)
  redis.call('ZADD', KEYS[3], whole(ends), name)
  redis.call('ZADD', KEYS[4], 0, name)
  return record
end
local function delete_lease(name)
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  redis.call('ZREM', KEYS[4], name)
end
