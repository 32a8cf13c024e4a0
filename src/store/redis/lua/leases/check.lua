-- Gives until when a write may pass, if the lease is held under the token. KEYS: info, leases.
-- ARGV: now, name, token, the longest time that a pass holds in milliseconds.
local record, token, ends = held_lease(ARGV[2])
if not record or token ~= ARGV[3] then
  return false
end
return whole(math.min(ends, now_ms + tonumber(ARGV[4])))
