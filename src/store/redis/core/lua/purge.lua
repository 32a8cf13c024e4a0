-- Removes expired entries. Returns how many.
-- KEYS: info, a sorted set of entries by time in milliseconds, then hashes and sorted sets of the same
-- entries. ARGV: now, how long after its time an entry expires, the most entries to remove.
local until_ms = whole(now_ms - tonumber(ARGV[2]))
local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', until_ms, 'LIMIT', 0, ARGV[3])
if #expired == 0 then
  return 0
end
for i = 3, #KEYS do
  local kind = redis.call('TYPE', KEYS[i])['ok']
  if kind ~= 'none' then
    redis.call(kind == 'hash' and 'HDEL' or 'ZREM', KEYS[i], unpack(expired))
  end
end
redis.call('ZREM', KEYS[2], unpack(expired))
return #expired
