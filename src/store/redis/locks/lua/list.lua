-- Lists locks that are held, in the order of their names. Returns where to continue, empty at the end, and name, end in
-- milliseconds, name, end.
-- KEYS: info, locks, lock_names. ARGV: now, where to end as ZRANGEBYLEX takes it, where to begin, the most locks, the
-- most names to look at.
local limit, step = tonumber(ARGV[4]), tonumber(ARGV[5])
local names = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[3], ARGV[2], 'LIMIT', 0, step)
if #names == 0 then
  return { '', {} }
end
local ends = redis.call('ZMSCORE', KEYS[2], unpack(names))
local reply, last = {}, nil
for i, name in ipairs(names) do
  if #reply == 2 * limit then
    break
  end
  last = name
  -- Expired locks keep their names until they are purged.
  local held_until = ends[i] and tonumber(ends[i])
  if held_until and held_until > now_ms then
    reply[#reply + 1] = name
    reply[#reply + 1] = whole(held_until)
  end
end
return { #names == step and '(' .. last or '', reply }
