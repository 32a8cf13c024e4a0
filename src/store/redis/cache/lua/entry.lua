-- The cache's entries of a shard. KEYS[3] to KEYS[7]: `cache`, a hash of what is known of each entry;
-- `cache_values`, a hash of its bytes; `cache_ends`, a sorted set of entries by their end in milliseconds;
-- `cache_namespaces`, a sorted set of namespaces by their size in bytes; `cache_miss_reasons`, a hash of why
-- entries are gone, by a hash of their id.
-- An entry's id is the length of its namespace, a colon, the namespace, the key.
-- The entries of each namespace are queued in `cache_queue:<namespace>` for eviction, oldest first.
-- Fields of info: cache_bytes, the size of all entries; cache_position, the last position in a queue.
-- Any of the keys may be lost alone, where somebody deletes it or Redis evicts keys: what is left of an
-- entry is cleared when it is found.

-- The most reasons that are remembered; then all are forgotten.
local MAX_MISS_REASONS = 4096

local function queue_of(namespace)
  return string.sub(info, 1, -5) .. 'cache_queue:' .. namespace
end
local function namespace_of(id)
  local digits = string.match(id, '^%d+')
  return string.sub(id, #digits + 2, #digits + 1 + tonumber(digits))
end
-- Returns number and fence of a key's generation.
local function generation_of(key)
  local number, bump = parts_of(redis.call('HGET', KEYS[2], key))
  return number, math.max(bump, minimum_fence)
end

-- The fields of an entry. SEEN is the shard's last bump when the value was put: the value is valid as long as
-- its generation's fence is not above it.
local SEEN, ENDS, SIZE, USES, HASH, CONTENT_TYPE, GENERATION_KEY = 1, 2, 3, 4, 5, 6, 7

local function entry_of(id)
  local packed = redis.call('HGET', KEYS[3], id)
  return packed and cmsgpack.unpack(packed)
end
local function save(id, entry)
  redis.call('HSET', KEYS[3], id, cmsgpack.pack(entry))
end
local function next_position()
  return redis.call('HINCRBY', info, 'cache_position', 1)
end

-- Remembers why an entry is gone, for the next lookup.
local function note_reason(id, reason)
  if redis.call('HLEN', KEYS[7]) >= MAX_MISS_REASONS then
    redis.call('DEL', KEYS[7])
  end
  redis.call('HSET', KEYS[7], string.sub(redis.sha1hex(id), 1, 16), reason)
end
local function reason_of(id)
  return redis.call('HGET', KEYS[7], string.sub(redis.sha1hex(id), 1, 16)) or 'absent'
end
local function forget_reason(id)
  redis.call('HDEL', KEYS[7], string.sub(redis.sha1hex(id), 1, 16))
end

-- Adds up the sizes of all namespaces.
local function recount()
  local sizes, sum = redis.call('ZRANGE', KEYS[6], 0, -1, 'WITHSCORES'), 0
  for i = 2, #sizes, 2 do
    sum = sum + tonumber(sizes[i])
  end
  -- A full Redis refuses this and must not refuse lookups; the next script repeats it.
  redis.pcall('HSET', info, 'cache_bytes', whole(sum))
end
-- `info` was lost alone, or nothing was cached yet.
if not numbers[4] then
  recount()
end

-- Removes an entry, and its size from the sums.
local function remove(id, entry)
  local namespace = namespace_of(id)
  redis.call('HDEL', KEYS[3], id)
  redis.call('HDEL', KEYS[4], id)
  redis.call('ZREM', KEYS[5], id)
  redis.call('ZREM', queue_of(namespace), id)
  if tonumber(redis.call('ZINCRBY', KEYS[6], -entry[SIZE], namespace)) <= 0 then
    redis.call('ZREM', KEYS[6], namespace)
  end
  redis.call('HINCRBY', info, 'cache_bytes', -entry[SIZE])
end
