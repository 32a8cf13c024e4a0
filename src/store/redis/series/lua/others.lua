-- Finds the series that a writer may not change; changes nothing but what is due. The roles may differ a moment later,
-- so the scripts that change series check them as well.
-- ARGV: .., the roles whose series may be changed, as roles.lua says, ids (c16 each).
-- Returns {others, how many, index, role..} | {none}.
local refuses, others = others_for(ARGV[4])
local all = ARGV[5]
for from = 1, #all, 16000 do
  local ids = {}
  for at = from, math.min(from + 15999, #all), 16 do
    ids[#ids + 1] = string.sub(all, at, at + 15)
  end
  for i, record in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
    if record then
      refuses(record, (from - 1) / 16 + i - 1)
    end
  end
end
return others() or { 'none' }
