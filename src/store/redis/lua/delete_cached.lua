-- Drops a value, and ends the turn at filling it; tells whether a lookup would have found it.
-- KEYS: info, generations, those of the cache, fills, fill_ends. ARGV: now, id.
local id = ARGV[2]
redis.call('HDEL', KEYS[8], id)
redis.call('ZREM', KEYS[9], id)
forget_reason(id)
local entry = entry_of(id)
if not entry then
  return 0
end
drop(id, entry)
local _, fence = generation_of(entry[GENERATION_KEY])
return (entry[SEEN] >= fence and now_ms < entry[ENDS]) and 1 or 0
