-- Removes values and turns at filling whose time is over; gives how many there were of each.
-- KEYS: info, generations, those of the cache, fills, fill_ends. ARGV: now, how many at most of each.
local values = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', whole(now_ms), 'LIMIT', 0, ARGV[2])
for _, id in ipairs(values) do
  local entry = entry_of(id)
  if entry then
    drop(id, entry)
    note(id, 'expired')
  else
    redis.call('ZREM', KEYS[5], id)
    redis.call('HDEL', KEYS[4], id)
  end
end
local turns = redis.call('ZRANGEBYSCORE', KEYS[9], '-inf', whole(now_ms), 'LIMIT', 0, ARGV[2])
if #turns > 0 then
  redis.call('HDEL', KEYS[8], unpack(turns))
  redis.call('ZREM', KEYS[9], unpack(turns))
end
return { #values, #turns }
