-- Extends a lease that is held under the token, from now. Returns the lease.
-- KEYS: info, leases, lease_ends, lease_names. ARGV: now, name, token, ttl in milliseconds and in
-- nanoseconds (or empty: the lease's own ttl).
local record, token, _, ttl, nanos, access, holder = held_lease(ARGV[2])
if not record or token ~= ARGV[3] then
  return false
end
if ARGV[4] ~= '' then
  ttl, nanos = tonumber(ARGV[4]), ARGV[5]
end
return write_lease(ARGV[2], token, ttl, nanos, access, holder)
