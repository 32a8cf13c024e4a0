-- Takes a lease that is free, or takes it over from the same claimant. Returns {acquired | held | overtaken, lease}.
-- KEYS: info, leases, lease_ends, lease_names, fences. ARGV: now, name, holder, ttl in milliseconds and in
-- nanoseconds, a token that the new one must be above, the token that the lease must be held under (or empty), the
-- holder's access as lease.lua says, 1 for a takeover, the most leases of the shard. The error LIMIT: there are as
-- many, and nothing was changed.
local name, holder, under, access = ARGV[2], ARGV[3], ARGV[7], ARGV[8]
local record, token, _, _, _, current_access, current_holder = held_lease(name)
if under ~= '' then
  -- A grant that is repeated under a higher token must not take the lease from a later grant.
  if under ~= token then
    return { 'overtaken', '' }
  end
elseif ARGV[9] == '1' then
  -- It is free, or another's.
  if not record or current_holder ~= holder or current_access ~= access then
    return { 'overtaken', '' }
  end
elseif record then
  return { 'held', record }
end
-- The ends of expired leases lie before now.
if not record
  and redis.call('ZCOUNT', KEYS[3], '(' .. whole(now_ms), '+inf') >= tonumber(ARGV[10]) then
  return redis.error_reply('LIMIT leases')
end
-- Purges a few expired leases, so that they never pile up.
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now_ms), 'LIMIT', 0, 10)) do
  delete_lease(old)
end
local new_token = next_token(name, tonumber(ARGV[6]))
return { 'acquired', write_lease(name, new_token, tonumber(ARGV[4]), ARGV[5], access, holder) }
