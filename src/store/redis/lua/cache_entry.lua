-- The entries of the cache in a shard. KEYS[3] to KEYS[7]: cache, a hash of what is known of each
-- entry; cache_values, its bytes; cache_ends, entries by their end in milliseconds; cache_bytes,
-- namespaces by what they take; cache_departed, why entries are gone, by a hash of their id.
-- An entry's id is the length of its namespace, a colon, the namespace, the key.
-- The entries of each namespace wait in `cache_queue:<namespace>` for being dropped, oldest first.
-- Of the shard's info: cache_bytes, what all take; cache_turn, the last place in a queue.
-- Any of the keys may be lost alone, where somebody deletes them, or Redis drops keys to make room:
-- what is left is cleared when it is met.

-- So many reasons are remembered; then all are forgotten.
local MAX_DEPARTED = 4096

local function queue_of(namespace)
  return string.sub(info, 1, -5) .. 'cache_queue:' .. namespace
end
local function namespace_of(id)
  local digits = string.match(id, '^%d+')
  return string.sub(id, #digits + 2, #digits + 1 + tonumber(digits))
end
-- Gives number and fence of a key's generation.
local function generation_of(key)
  local number, bump = parts_of(redis.call('HGET', KEYS[2], key))
  return number, math.max(bump, bump_floor)
end

-- What stands at which place of an entry.
local SEEN, ENDS, SIZE, USES, HASH, CONTENT_TYPE, GENERATION_KEY = 1, 2, 3, 4, 5, 6, 7

local function entry_of(id)
  local packed = redis.call('HGET', KEYS[3], id)
  return packed and cmsgpack.unpack(packed)
end
local function save(id, entry)
  redis.call('HSET', KEYS[3], id, cmsgpack.pack(entry))
end
local function next_turn()
  return redis.call('HINCRBY', info, 'cache_turn', 1)
end

-- Remembers why an entry is gone.
local function note(id, reason)
  if redis.call('HLEN', KEYS[7]) >= MAX_DEPARTED then
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

-- Sums up what all namespaces take.
local function recount()
  local held, sum = redis.call('ZRANGE', KEYS[6], 0, -1, 'WITHSCORES'), 0
  for i = 2, #held, 2 do
    sum = sum + tonumber(held[i])
  end
  -- A full Redis refuses it, and must not refuse lookups; then it is done again.
  redis.pcall('HSET', info, 'cache_bytes', whole(sum))
end
if not places[4] then
  recount()
end

local function drop(id, entry)
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
