-- Deletes series. ARGV: .., fence (3), ids (c16 each), none of them twice.
-- Returns what `fence.lua` says | {how many were deleted, seq}.
local refusal = fence_refusal(ARGV[4], ARGV[5], ARGV[6])
if refusal then
  return refusal
end
local all = ARGV[7]
local ids, records = {}, {}
for from = 1, #all, 16000 do
  local chunk = {}
  for at = from, math.min(from + 15999, #all), 16 do
    chunk[#chunk + 1] = string.sub(all, at, at + 15)
  end
  local found = redis.call('HMGET', KEYS[2], unpack(chunk))
  for i, id in ipairs(chunk) do
    if found[i] then
      ids[#ids + 1] = id
      records[#records + 1] = found[i]
    end
  end
end
delete_series(ids, records)
return { #ids, whole(seq) }
