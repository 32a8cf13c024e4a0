-- Looks values up. KEYS: info, generations, and those of the cache. ARGV: now, then id and
-- generation key of each. Gives for each: the generation's number and fence, why there is no value,
-- and else when it ends, its hash, its content type and its bytes.

-- An entry that was used so often stays for as many rounds of its queue. More uses are not counted:
-- looking up what is used much writes nothing.
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
  local ended = (entry[SEEN] < fence and 'stale') or (entry[ENDS] <= now_ms and 'expired')
  if ended then
    drop(id, entry)
    note(id, ended)
    return miss(ended)
  end
  local value = redis.call('HGET', KEYS[4], id)
  if not value then
    drop(id, entry)
    return miss('absent')
  end
  if entry[USES] < MAX_USES then
    entry[USES] = entry[USES] + 1
    -- Only a hint for who is dropped first: a full Redis refuses it, and must not refuse the lookup.
    redis.pcall('HSET', KEYS[3], id, cmsgpack.pack(entry))
  end
  return { number, fence, '', entry[ENDS], entry[HASH], entry[CONTENT_TYPE], value }
end

local answer = {}
for i = 2, #ARGV, 2 do
  answer[#answer + 1] = look_up(ARGV[i], ARGV[i + 1])
end
return answer
