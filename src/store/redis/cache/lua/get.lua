-- Looks values up. Returns for each: number and fence of the generation, the reason of a miss or nothing,
-- and then the value's end, hash, content type and bytes.
-- KEYS: info, generations, those of `entry.lua`. ARGV: now, then id and generation key of each.

-- The most uses that are counted: an entry that is used much is looked up without a write.
local MAX_USES = 3

local function look_up(id, generation_key)
  local number, fence = generation_of(generation_key)
  local function miss(reason)
    return { number, fence, reason, 0, '', '', '' }
  end
  local entry = entry_of(id)
  if not entry then
    return miss(reason_of(id))
  end
  if entry[GENERATION_KEY] ~= generation_key then
    return miss('stale')
  end
  -- A bump after the put, or the end of the ttl.
  local ended = (entry[SEEN] < fence and 'stale') or (entry[ENDS] <= now_ms and 'expired')
  if ended then
    remove(id, entry)
    note_reason(id, ended)
    return miss(ended)
  end
  local value = redis.call('HGET', KEYS[4], id)
  if not value then
    -- The hash of values was lost alone.
    remove(id, entry)
    return miss('absent')
  end
  if entry[USES] < MAX_USES then
    entry[USES] = entry[USES] + 1
    -- Only a hint for the eviction: a full Redis refuses it, and must not refuse the lookup.
    redis.pcall('HSET', KEYS[3], id, cmsgpack.pack(entry))
  end
  return { number, fence, '', entry[ENDS], entry[HASH], entry[CONTENT_TYPE], value }
end

local reply = {}
for i = 2, #ARGV, 2 do
  reply[#reply + 1] = look_up(ARGV[i], ARGV[i + 1])
end
return reply
