-- Ends a lease that is held under the token. Returns the lowest token that is accepted from now on.
-- KEYS: info, leases, lease_ends, lease_names, fences. ARGV: now, name, token.
local record, token = held_lease(ARGV[2])
if not record or token ~= ARGV[3] then
  return false
end
-- A new token and not the next integer: shards forget fences by their age, and a token tells its age.
local lowest = next_token(ARGV[2], 0)
delete_lease(ARGV[2])
return lowest
