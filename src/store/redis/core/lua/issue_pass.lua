-- Issues a pass: returns its end in milliseconds, if the lease is held under the token.
-- KEYS: info, leases. ARGV: now, name, token, how long a pass is valid at most in milliseconds.
local record, token, ends = held_lease(ARGV[2])
if not record or token ~= ARGV[3] then
  return false
end
return whole(math.min(ends, now_ms + tonumber(ARGV[4])))
