-- Returns the leases that are held, in the order of their names: name, lease, name, lease.
-- KEYS: info, leases, lease_names. ARGV: now, where to begin as ZRANGEBYLEX takes it, the most leases.
local from, limit = ARGV[2], tonumber(ARGV[3])
local reply = {}
while #reply < 2 * limit do
  local names = redis.call('ZRANGEBYLEX', KEYS[3], from, '+', 'LIMIT', 0, math.min(limit, 1000))
  for _, name in ipairs(names) do
    -- Expired leases keep their names until they are purged.
    local record = held_lease(name)
    if record and #reply < 2 * limit then
      reply[#reply + 1] = name
      reply[#reply + 1] = record
    end
  end
  if #names == 0 then
    break
  end
  from = '(' .. names[#names]
end
return reply
