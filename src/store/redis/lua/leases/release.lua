-- Ends a lease. KEYS: info, leases, lease_ends, lease_names, fences. ARGV: now, name, token.
-- Answers the lowest token that is accepted from now on, if the lease was held.
local record, token = held_lease(ARGV[2])
if not record or token ~= ARGV[3] then
  return false
end
-- Not its own token and one: what is told is forgotten by its age, and a token tells its age.
local lowest = next_token(ARGV[2], 0)
drop_lease(ARGV[2])
return lowest
