-- Takes a lease when it is free or held by the same holder. KEYS: info, leases, lease_ends,
-- lease_names, fences. ARGV: now, name, holder, ttl in milliseconds and in nanoseconds, a token that
-- the new one must be above, and the token that the lease must be held under (or nothing).
-- Answers what became of it (acquired, held, overtaken) and the lease.
local name, holder = ARGV[2], ARGV[3]
local record, token, _, _, _, owner = held_lease(name)
if ARGV[7] ~= '' and ARGV[7] ~= token then
  return { 'overtaken', '' }
end
if record and owner ~= holder then
  return { 'held', record }
end
-- A little of what others left behind, so that it never piles up.
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now_ms), 'LIMIT', 0, 10)) do
  drop_lease(old)
end
local fresh = next_token(name, tonumber(ARGV[6]))
return { 'acquired', put_lease(name, fresh, tonumber(ARGV[4]), ARGV[5], holder) }
