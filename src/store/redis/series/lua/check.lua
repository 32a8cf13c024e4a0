-- Checks whether a part of a batch may be applied; changes nothing but what is due.
-- ARGV: .., fence (3), the shard's quota, the most series that can be new, and, where the new ones are to be
-- counted, the ids with the times of their newest points and the bytes of their keys and their metadata: c16 >i6 I4
-- I4 each, the least i6 for "on arrival"; the shard's quota of bytes; the most bytes that it can grow by.
-- Returns what `fence.lua` says | {fits, room, room for bytes} | {over_quota, new, room} | {over_bytes, more, room}.
local refusal = fence_refusal(ARGV[4], ARGV[5], ARGV[6])
if refusal then
  return refusal
end
local room = math.max(tonumber(ARGV[7]) - redis.call('HLEN', KEYS[2]), 0)
local room_bytes = math.max(tonumber(ARGV[10]) - live_bytes, 0)
local new, points, more = tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[11])
if points ~= '' then
  new, more = 0, 0
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
end
if new > room then
  return { 'over_quota', new, room }
end
if more > room_bytes then
  return { 'over_bytes', whole(more), whole(room_bytes) }
end
return { 'fits', room, whole(room_bytes) }
