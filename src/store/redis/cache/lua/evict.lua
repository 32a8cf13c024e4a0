-- Evicts entries, the least used first: a queue by age, in which an entry that was used goes to the end
-- once for each use that is counted.

-- The most entries that one script evicts: far more than one put needs, unless the limits were lowered.
local MAX_EVICTED = 200
local evicted = 0
-- The most entries that one script moves to the end because they were used.
local MAX_SPARED = 64
local spared = 0

-- Evicts one entry of a namespace. Returns whether anything was removed, so that a loop over this ends.
local function evict(namespace)
  local queue = queue_of(namespace)
  while true do
    local oldest = redis.call('ZRANGE', queue, 0, 0)[1]
    if not oldest then
      -- The queue was lost, or the size of the namespace is wrong: it holds nothing that can be evicted.
      local counted = redis.call('ZREM', KEYS[6], namespace)
      recount()
      return counted == 1
    end
    local entry = entry_of(oldest)
    if not entry then
      -- The rest of an entry that was lost.
      redis.call('ZREM', queue, oldest)
      redis.call('ZREM', KEYS[5], oldest)
      redis.call('HDEL', KEYS[4], oldest)
      return true
    end
    if entry[USES] == 0 or spared == MAX_SPARED then
      remove(oldest, entry)
      note_reason(oldest, 'evicted')
      return true
    end
    spared = spared + 1
    entry[USES] = entry[USES] - 1
    save(oldest, entry)
    redis.call('ZADD', queue, next_position(), oldest)
  end
end
