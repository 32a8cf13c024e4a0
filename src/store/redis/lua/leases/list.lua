-- Reads leases in the order of their names. KEYS: info, leases, lease_names. ARGV: now, where to
-- begin as ZRANGEBYLEX has it, at most how many. Answers name, lease, name, lease.
local from, limit = ARGV[2], tonumber(ARGV[3])
local answer = {}
while #answer < 2 * limit do
  local names = redis.call('ZRANGEBYLEX', KEYS[3], from, '+', 'LIMIT', 0, math.min(limit, 1000))
  for _, name in ipairs(names) do
    local record = held_lease(name)
    if record and #answer < 2 * limit then
      answer[#answer + 1] = name
      answer[#answer + 1] = record
    end
  end
  if #names == 0 then
    break
  end
  from = '(' .. names[#names]
end
return answer
