-- Forgets old fences. Returns how many. KEYS: info, fences. ARGV: now, their age in microseconds, the most
-- to forget. A token is never below the time in microseconds at which it was issued, so it tells its age.
local oldest_us = whole(now_us - tonumber(ARGV[2]))
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', oldest_us, 'LIMIT', 0, ARGV[3])
if #old > 0 then
  redis.call('ZREM', KEYS[2], unpack(old))
end
return #old
