-- Checks whether a part of a batch may be applied, as if all its series were new; changes nothing but what is due.
-- ARGV: .., fence (3), the shard's quota, and that of bytes, the most series that can be new, the most bytes that it can
-- grow by.
-- Returns what `fence.lua` says | {fits | short, room, room for bytes}.
local refusal = fence_refusal(ARGV[4], ARGV[5], ARGV[6])
if refusal then
  return refusal
end
local room = math.max(tonumber(ARGV[7]) - redis.call('HLEN', KEYS[2]), 0)
local room_bytes = math.max(tonumber(ARGV[8]) - live_bytes, 0)
local fits = tonumber(ARGV[9]) <= room and tonumber(ARGV[10]) <= room_bytes
return { fits and 'fits' or 'short', room, whole(room_bytes) }
