-- Forgets old fences. KEYS: info, fences. ARGV: now, how old in microseconds. Answers how many.
-- A token is never below the time in microseconds at which it was given, so it tells its age.
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', whole(now_us - tonumber(ARGV[2])), 'LIMIT', 0, 1000)
if #old > 0 then
  redis.call('ZREM', KEYS[2], unpack(old))
end
return #old
