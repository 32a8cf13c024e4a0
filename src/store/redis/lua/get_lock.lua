-- Gives when a lock ends. KEYS: info, locks. ARGV: now, key.
local held = redis.call('ZSCORE', KEYS[2], ARGV[2])
if held and tonumber(held) > now_ms then
  return whole(tonumber(held))
end
return false
