-- Reading generations. KEYS[2] is `generations`: a hash of keys, each with its number and the
-- place of its last bump, as text with a colon between. Of the shard's info: bump, the place of the
-- last bump of all; bump_floor, below which no fence holds for any key; generation_count, how many
-- keys there are.
local places = redis.call('HMGET', info, 'bump', 'bump_floor', 'generation_count', 'cache_bytes')
local last_bump, bump_floor = tonumber(places[1]), tonumber(places[2])
local generation_count = redis.call('HLEN', KEYS[2])
if generation_count ~= tonumber(places[3] or 0) then
  -- The hash was lost alone: somebody deleted it, or Redis was told to make room by dropping keys.
  last_bump = math.max(last_bump + 1, now_us)
  bump_floor = last_bump
  redis.call('HSET', info, 'bump', whole(last_bump), 'bump_floor', whole(bump_floor),
    'generation_count', generation_count)
end
-- Gives the number and the place of the last bump of what is held for a key.
local function parts_of(row)
  if not row then
    return 0, 0
  end
  local number, bump = string.match(row, '^(%d+):(%d+)$')
  return tonumber(number), tonumber(bump)
end
