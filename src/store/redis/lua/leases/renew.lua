-- Makes a lease last from now. KEYS: info, leases, lease_ends, lease_names. ARGV: now, name, token,
-- ttl in milliseconds and in nanoseconds (or nothing: its own). Answers the lease, if it is held.
local record, token, _, ttl, nanos, holder = held_lease(ARGV[2])
if not record or token ~= ARGV[3] then
  return false
end
if ARGV[4] ~= '' then
  ttl, nanos = tonumber(ARGV[4]), ARGV[5]
end
return put_lease(ARGV[2], token, ttl, nanos, holder)
