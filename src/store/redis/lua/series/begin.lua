-- What every script of series begins with: what is due becomes a deletion.
--
-- KEYS: info, series, log, ages, dead, graves, holds, hold_ends, fences. ARGV: now, retention in
-- milliseconds (0 = for ever), the most tombstones, and then what each script says.
--
-- series     hash, id -> record, see codec.rs: >i6 I3 time, >i6 where it stands in `ages`, 8 bytes of
--            value, >I4 metadata, key
-- log        sorted set, id by the number of its newest change, tombstones included
-- ages       sorted set, id by a time in milliseconds at or before its sample's, rounded up. An update
--            seldom moves it: when it comes up too early, it is put where it belongs
-- dead       hash, id -> key, of what was deleted
-- graves     sorted set, id by the number of its deletion
-- holds      hash, batch -> size:known, the room that is reserved for it, and how many of its series it
--            found; hold_ends: sorted set, by when the reservation ends
-- info has   quota, quota_version, quota_epoch (the shard's own then), budget (the epoch of who granted
--            it), held (the sum of holds), series (1: these keys belong to this life of the shard)
local DEAD = '\128\0\0\0\0\0' .. string.rep('\0', 21)
local MOST_DUE = 5000
local retention_ms = tonumber(ARGV[2])
local kept = redis.call('HMGET', info, 'seq', 'series')
local seq = tonumber(kept[1])

-- Any of the keys may be lost alone, info as well, where somebody deletes it or Redis drops keys to make
-- room. Half of an index is worse than none: the rest goes, and no cursor of before is honoured.
local function is_whole()
  local live, deleted = redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[6])
  return redis.call('ZCARD', KEYS[4]) == live and redis.call('HLEN', KEYS[5]) == deleted
    and redis.call('ZCARD', KEYS[3]) == live + deleted
end
if not kept[2] or not is_whole() then
  redis.call('UNLINK', unpack(KEYS, 2, 8))
  if kept[2] then
    epoch = string.sub(redis.sha1hex(epoch .. 'series' .. whole(now_us)), 1, 16)
  end
  redis.call('HSET', info, 'series', 1, 'epoch', epoch, 'held', 0)
end

-- Calls a command with any number of arguments, which come in pairs or alone.
local function in_chunks(command, key, arguments)
  for from = 1, #arguments, 4000 do
    redis.call(command, key, unpack(arguments, from, math.min(from + 3999, #arguments)))
  end
end

-- Forgets the oldest deletions beyond the limit.
local function forget()
  local over = redis.call('ZCARD', KEYS[6]) - tonumber(ARGV[3])
  while over > 0 do
    local part = math.min(over, 1000)
    local oldest = redis.call('ZRANGE', KEYS[6], 0, part - 1)
    local floor = redis.call('ZSCORE', KEYS[6], oldest[#oldest])
    redis.call('HDEL', KEYS[5], unpack(oldest))
    redis.call('ZREM', KEYS[6], unpack(oldest))
    redis.call('ZREM', KEYS[3], unpack(oldest))
    redis.call('HSET', info, 'floor', floor)
    over = over - part
  end
end

-- Deletes live series, and remembers that.
local function bury(ids, records)
  if #ids == 0 then
    return
  end
  local dead, log = {}, {}
  for i, id in ipairs(ids) do
    local metadata_bytes = struct.unpack('>I4', records[i], 24)
    seq = seq + 1
    dead[2 * i - 1] = id
    dead[2 * i] = string.sub(records[i], 28 + metadata_bytes)
    log[2 * i - 1] = seq
    log[2 * i] = id
  end
  -- Frees memory first: where it is short, the rest of a script that has written is let through.
  in_chunks('HDEL', KEYS[2], ids)
  in_chunks('ZREM', KEYS[4], ids)
  redis.call('HSET', info, 'seq', whole(seq))
  in_chunks('ZADD', KEYS[3], log)
  in_chunks('HSET', KEYS[5], dead)
  in_chunks('ZADD', KEYS[6], log)
  -- A batch that found one of them needs room to make it again. Together such batches need no more than
  -- was freed just now, but who will is not known: so each may.
  local holds, grown = redis.call('HGETALL', KEYS[7]), 0
  for i = 1, #holds, 2 do
    local size, known = string.match(holds[i + 1], '^(%d+):(%d+)$')
    local more = math.min(#ids, tonumber(known))
    if more > 0 then
      grown = grown + more
      local left = whole(tonumber(known) - more)
      redis.call('HSET', KEYS[7], holds[i], whole(tonumber(size) + more) .. ':' .. left)
    end
  end
  if grown > 0 then
    redis.call('HINCRBY', info, 'held', whole(grown))
  end
  forget()
end

-- Looks at what comes up; gives how many series were deleted, and whether more may be due.
local function expire(oldest)
  local up = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', whole(oldest), 'LIMIT', 0, MOST_DUE)
  if #up == 0 then
    return 0, false
  end
  local ids, records, later = {}, {}, {}
  for from = 1, #up, 1000 do
    local to = math.min(from + 999, #up)
    local held = redis.call('HMGET', KEYS[2], unpack(up, from, to))
    for i = from, to do
      local record = held[i - from + 1]
      local ms, nanos = struct.unpack('>i6I3', record)
      if nanos > 0 then
        ms = ms + 1
      end
      if ms <= oldest then
        ids[#ids + 1] = up[i]
        records[#records + 1] = record
      else
        later[#later + 1] = ms
        later[#later + 1] = up[i]
      end
    end
  end
  if #later > 0 then
    -- Takes away first, as above: a full Redis must neither refuse reads nor keep what is over.
    redis.call('ZREM', KEYS[4], later[2])
    in_chunks('ZADD', KEYS[4], later)
  end
  bury(ids, records)
  return #ids, #up == MOST_DUE
end

local expired = 0
-- A sample at or before this is past the retention.
local oldest
if retention_ms > 0 then
  oldest = now_ms - retention_ms
  local more
  expired, more = expire(oldest)
  if more then
    -- Nobody sees what is due, so that the rest of the script waits for the next call.
    return { ok = 'DUE ' .. expired }
  end
end
