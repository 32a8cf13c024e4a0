-- Deletes a value. Returns whether a lookup would have found it.
-- KEYS: info, generations, those of `entry.lua`. ARGV: now, id.
local id = ARGV[2]
forget_reason(id)
local entry = entry_of(id)
if not entry then
  return 0
end
remove(id, entry)
local _, fence = generation_of(entry[GENERATION_KEY])
return (entry[SEEN] >= fence and now_ms < entry[ENDS]) and 1 or 0
