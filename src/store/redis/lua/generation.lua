-- Reading generations. KEYS[2] is `generations`: a hash of keys, each with its number and the
-- place of its last bump, as text with a colon between. Of the shard's info: bump, the place of the
-- last bump of all, and bump_floor, below which no fence holds for any key.
local places = redis.call('HMGET', info, 'bump', 'bump_floor')
local last_bump, bump_floor = tonumber(places[1]), tonumber(places[2])
-- Gives the number and the place of the last bump of what is held for a key.
local function parts_of(row)
  if not row then
    return 0, 0
  end
  local number, bump = string.match(row, '^(%d+):(%d+)$')
  return tonumber(number), tonumber(bump)
end
