-- Checks whether a part of a batch may be applied; changes nothing but what is due.
-- ARGV: .., fence (3), the shard's quota, the most series that can be new, and, where the new ones are to be
-- counted, the ids with the times of their newest points: c16 >i6 each, the least i6 for "on arrival".
-- Returns {refused} | {fits, room} | {over_quota, new, room}.
if fence_refused(ARGV[4], ARGV[5], ARGV[6]) then
  return { 'refused' }
end
local room = math.max(tonumber(ARGV[7]) - redis.call('HLEN', KEYS[2]), 0)
local new, points = tonumber(ARGV[8]), ARGV[9]
if points ~= '' then
  new = 0
  for from = 1, #points, 22000 do
    local ids, count = {}, 0
    for at = from, math.min(from + 21999, #points), 22 do
      local id, ms = struct.unpack('>c16i6', points, at)
      -- Points past the retention are dropped as stale, so they create no series.
      if not oldest or ms > oldest or ms == -140737488355328 then
        count = count + 1
        ids[count] = id
      end
    end
    if count > 0 then
      local found = redis.call('HMGET', KEYS[2], unpack(ids))
      for i = 1, count do
        if not found[i] then
          new = new + 1
        end
      end
    end
  end
end
if new > room then
  return { 'over_quota', new, room }
end
return { 'fits', room }
