-- Returns the end of a lock that is held. KEYS: info, locks. ARGV: now, key.
local held_until = redis.call('ZSCORE', KEYS[2], ARGV[2])
if held_until and tonumber(held_until) > now_ms then
  return whole(tonumber(held_until))
end
return false
