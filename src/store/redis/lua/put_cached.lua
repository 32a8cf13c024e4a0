-- Holds a value, if what was seen of its generation still stands. KEYS: info, generations, those of
-- the cache, the queue of the namespace. ARGV: now, id, namespace, generation key, `fence` or
-- `number`, what was seen of it, the entry's size, ttl in milliseconds, content type, hash, the most
-- bytes of a namespace, the most bytes, the most namespaces, the value.

-- So many entries are spared in one call because they were used.
local MAX_SPARED = 64

local id, namespace, generation_key = ARGV[2], ARGV[3], ARGV[4]
local number, fence = generation_of(generation_key)
local seen = tonumber(ARGV[6])
local holds
if ARGV[5] == 'fence' then
  holds = fence <= seen and seen <= last_bump
else
  holds = seen == number
end
if not holds then
  return { 'moved', number, fence }
end
local namespaces = redis.call('ZCARD', KEYS[6])
if namespaces >= tonumber(ARGV[13]) and not redis.call('ZSCORE', KEYS[6], namespace) then
  return { 'too many namespaces', number, fence }
end

-- Before anything is removed: where Redis is out of memory, it refuses this.
local turn = next_turn()
local spared = 0
-- Drops the oldest entry of a namespace that was not used since its last round; tells whether that
-- changed anything.
local function evict(from)
  local queue = queue_of(from)
  while true do
    local oldest = redis.call('ZRANGE', queue, 0, 0)[1]
    if not oldest then
      local counted = redis.call('ZREM', KEYS[6], from)
      recount()
      return counted == 1
    end
    local entry = entry_of(oldest)
    if not entry then
      redis.call('ZREM', queue, oldest)
      redis.call('ZREM', KEYS[5], oldest)
      redis.call('HDEL', KEYS[4], oldest)
      return true
    end
    if entry[USES] == 0 or spared == MAX_SPARED then
      drop(oldest, entry)
      note(oldest, 'evicted')
      return true
    end
    spared = spared + 1
    entry[USES] = entry[USES] - 1
    save(oldest, entry)
    redis.call('ZADD', queue, next_turn(), oldest)
  end
end

local size = tonumber(ARGV[7])
local uses = 0
local former = entry_of(id)
if former then
  uses = former[USES]
  drop(id, former)
end
local function over(held, bound)
  return tonumber(held or 0) + size > tonumber(bound)
end
while over(redis.call('ZSCORE', KEYS[6], namespace), ARGV[11]) and evict(namespace) do
end
while over(redis.call('HGET', info, 'cache_bytes'), ARGV[12])
  and evict(redis.call('ZREVRANGE', KEYS[6], 0, 0)[1] or namespace) do
end

local ends = up_ms + tonumber(ARGV[8])
save(id, { last_bump, ends, size, uses, ARGV[10], ARGV[9], generation_key })
redis.call('HSET', KEYS[4], id, ARGV[14])
redis.call('ZADD', KEYS[5], whole(ends), id)
redis.call('ZADD', KEYS[8], turn, id)
redis.call('ZINCRBY', KEYS[6], size, namespace)
redis.call('HINCRBY', info, 'cache_bytes', size)
forget_reason(id)
return { 'stored', ends, 0 }
