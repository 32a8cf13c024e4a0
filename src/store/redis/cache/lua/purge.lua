-- Removes expired values. Returns how many.
-- KEYS: info, generations, those of `entry.lua`. ARGV: now, the most values.
local expired = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', whole(now_ms), 'LIMIT', 0, ARGV[2])
for _, id in ipairs(expired) do
  local entry = entry_of(id)
  if entry then
    remove(id, entry)
    note_reason(id, 'expired')
  else
    -- The rest of an entry that was lost.
    redis.call('ZREM', KEYS[5], id)
    redis.call('HDEL', KEYS[4], id)
  end
end
return #expired
