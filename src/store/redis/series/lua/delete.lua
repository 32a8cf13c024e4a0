-- Deletes series, all or none. ARGV: .., fence (3), ids (c16 each), none of them twice, the roles whose series may be
-- changed, as roles.lua says.
-- Returns what `fence.lua` says | {others, how many, index, role..} | {deleted, how many, seq}.
local refusal = fence_refusal(ARGV[4], ARGV[5], ARGV[6])
if refusal then
  return refusal
end
local all = ARGV[7]
local refuses, others = others_for(ARGV[8])
local ids, records = {}, {}
for from = 1, #all, 16000 do
  local chunk = {}
  for at = from, math.min(from + 15999, #all), 16 do
    chunk[#chunk + 1] = string.sub(all, at, at + 15)
  end
  local found = redis.call('HMGET', KEYS[2], unpack(chunk))
  for i, id in ipairs(chunk) do
    if found[i] and not refuses(found[i], (from - 1) / 16 + i - 1) then
      ids[#ids + 1] = id
      records[#records + 1] = found[i]
    end
  end
end
if others() then
  return others()
end
delete_series(ids, records)
return { 'deleted', #ids, whole(seq) }
