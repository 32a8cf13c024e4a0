-- Stores a value, if its generation has not moved since it was seen. Returns {stored, end, 0},
-- {moved, number, fence}, {too many namespaces, number, fence}, or {evicting, 0, 0} where more must be evicted than
-- one script may.
-- KEYS: info, generations, those of `entry.lua`. ARGV: now, id, namespace, generation key, `fence` or
-- `number`, what was seen of the generation, the entry's size, ttl in milliseconds, content type, hash, the
-- most bytes of a namespace, the most bytes, the most namespaces, the value.
local id, namespace, generation_key = ARGV[2], ARGV[3], ARGV[4]
local number, fence = generation_of(generation_key)
local seen = tonumber(ARGV[6])
local valid
if ARGV[5] == 'fence' then
  -- Not below the key's last bump; and not above the shard's last bump, which only a fence from a lost
  -- past can be.
  valid = fence <= seen and seen <= last_bump
else
  valid = seen == number
end
if not valid then
  return { 'moved', number, fence }
end
local namespaces = redis.call('ZCARD', KEYS[6])
if namespaces >= tonumber(ARGV[13]) and not redis.call('ZSCORE', KEYS[6], namespace) then
  return { 'too many namespaces', number, fence }
end

-- Writes before anything is removed: a full Redis refuses this, and the entries stay.
local position = next_position()
local size = tonumber(ARGV[7])
local uses = 0
local former = entry_of(id)
if former then
  uses = former[USES]
  remove(id, former)
end
local function over(held, limit)
  return tonumber(held or 0) + size > tonumber(limit)
end
-- First the namespace itself, then the largest namespace of all.
local function make_room(is_over, next_namespace)
  while is_over() do
    if evicted == MAX_EVICTED then
      return false
    end
    evicted = evicted + 1
    if not evict(next_namespace()) then
      return true
    end
  end
  return true
end
local room = make_room(function()
  return over(redis.call('ZSCORE', KEYS[6], namespace), ARGV[11])
end, function()
  return namespace
end) and make_room(function()
  return over(redis.call('HGET', info, 'cache_bytes'), ARGV[12])
end, function()
  return redis.call('ZREVRANGE', KEYS[6], 0, 0)[1] or namespace
end)
if not room then
  -- The client runs the script again, so that other commands come in between.
  return { 'evicting', 0, 0 }
end

local ends = up_ms + tonumber(ARGV[8])
-- The shard's last bump is the most that can be known now. Any later bump of the key is above it.
save(id, { last_bump, ends, size, uses, ARGV[10], ARGV[9], generation_key })
redis.call('HSET', KEYS[4], id, ARGV[14])
redis.call('ZADD', KEYS[5], whole(ends), id)
redis.call('ZADD', queue_of(namespace), position, id)
redis.call('ZINCRBY', KEYS[6], size, namespace)
redis.call('HINCRBY', info, 'cache_bytes', size)
forget_reason(id)
return { 'stored', ends, 0 }
