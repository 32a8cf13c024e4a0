-- Counts how many of some series are new, and by how many bytes all of them grow; changes nothing but what is due.
-- ARGV: .., fence (3), the shard's quota, and that of bytes, the ids with the times of their newest points and the bytes
-- of their keys and their metadata: c16 >i6 I4 I4 each, the least i6 for "on arrival".
-- Returns what `fence.lua` says | {new, bytes, room, room for bytes}.
local refusal = fence_refusal(ARGV[4], ARGV[5], ARGV[6])
if refusal then
  return refusal
end
local points = ARGV[9]
local new, more = 0, 0
for from = 1, #points, 30000 do
  local ids, sizes, count = {}, {}, 0
  for at = from, math.min(from + 29999, #points), 30 do
    local id, ms, key_bytes, metadata_bytes = struct.unpack('>c16i6I4I4', points, at)
    -- Points past the retention are dropped as stale, so they create no series.
    if not oldest or ms > oldest or ms == -140737488355328 then
      count = count + 1
      ids[count] = id
      sizes[count] = { key_bytes, metadata_bytes }
    end
  end
  if count > 0 then
    local found = redis.call('HMGET', KEYS[2], unpack(ids))
    for i = 1, count do
      local key_bytes, metadata_bytes = sizes[i][1], sizes[i][2]
      if not found[i] then
        new = new + 1
        more = more + key_bytes + metadata_bytes
      elseif metadata_bytes > 0 then
        more = more + math.max(key_bytes + metadata_bytes - bytes_of(found[i]), 0)
      end
    end
  end
end
local room = math.max(tonumber(ARGV[7]) - redis.call('HLEN', KEYS[2]), 0)
return { new, whole(more), room, whole(math.max(tonumber(ARGV[8]) - live_bytes, 0)) }
