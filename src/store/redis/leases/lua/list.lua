-- Lists leases that are held, in the order of their names. Returns where to continue, empty at the end, and name,
-- lease, name, lease.
-- KEYS: info, leases, lease_names. ARGV: now, where to begin as ZRANGEBYLEX takes it, the most leases, the most
-- names to look at.
local limit, step = tonumber(ARGV[3]), tonumber(ARGV[4])
local reply, last = {}, nil
local names = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[2], '+', 'LIMIT', 0, step)
for _, name in ipairs(names) do
  if #reply == 2 * limit then
    break
  end
  last = name
  -- Expired leases keep their names until they are purged.
  local record = held_lease(name)
  if record then
    reply[#reply + 1] = name
    reply[#reply + 1] = record
  end
end
return { #names == step and '(' .. last or '', reply }
