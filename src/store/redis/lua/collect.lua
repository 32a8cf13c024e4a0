-- Removes what is over. KEYS: info, a sorted set by time in milliseconds, and hashes and sorted sets
-- with the same members. ARGV: now, how long after its time a thing is over, at most how many.
-- Answers how many.
local until_ms = whole(now_ms - tonumber(ARGV[2]))
local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', until_ms, 'LIMIT', 0, ARGV[3])
if #over == 0 then
  return 0
end
for i = 3, #KEYS do
  local kind = redis.call('TYPE', KEYS[i])['ok']
  if kind ~= 'none' then
    redis.call(kind == 'hash' and 'HDEL' or 'ZREM', KEYS[i], unpack(over))
  end
end
redis.call('ZREM', KEYS[2], unpack(over))
return #over
