-- Reserves room for the new series of a batch.
-- ARGV: .., fence (3), hold, how long it lasts in milliseconds, the most that can be new, and, where
-- that is to be counted, the ids with their times: c16 >i6 each, the least i6 for "on arrival".
-- Answers {refused} | {held, new} | {short, new, room}.
if fence_refused(ARGV[4], ARGV[5], ARGV[6]) then
  return { 'refused' }
end
local hold, points = ARGV[7], ARGV[10]
local new = tonumber(ARGV[9])
local known = 0
end_hold(hold)
local room = quota - live - held
if points == '' then
  -- Not counted: leave most of the room to others.
  if 2 * new > room then
    return { 'short', new, room }
  end
else
  new = 0
  for from = 1, #points, 22000 do
    local ids, kept = {}, 0
    for at = from, math.min(from + 21999, #points), 22 do
      local id, ms = struct.unpack('>c16i6', points, at)
      if not oldest or ms > oldest or ms == -140737488355328 then
        kept = kept + 1
        ids[kept] = id
      end
    end
    if kept > 0 then
      local found = redis.call('HMGET', KEYS[2], unpack(ids))
      for i = 1, kept do
        if found[i] then
          known = known + 1
        else
          new = new + 1
        end
      end
    end
  end
  if new > room then
    return { 'short', new, room }
  end
end
begin_hold(hold, new, known, now_ms + tonumber(ARGV[8]))
return { 'held', new }
