-- What each script on series begins with: what is due becomes a deletion.
--
-- KEYS: info, series, series_log, series_updates, tombstones, tombstone_log, fences. ARGV: now, retention in
-- milliseconds (0 = for ever), the most tombstones and after a blank the most bytes of their keys, and then
-- what each script says.
--
-- series          hash: id, and record, see codec.rs: >i6 I3 time, >i6 its score in `series_updates`, 8 bytes
--                 of value, role, >I4 metadata, key. The highest bit of the nanoseconds says whether there is a role
-- series_log      sorted set: id by the sequence number of its newest change, tombstones included
-- series_updates  sorted set: id by a time in milliseconds at or before that of its sample, rounded up. An
--                 update seldom moves it: an id that is due too early is moved to its sample's time then
-- tombstones      hash: id, and key, of what was deleted
-- tombstone_log   sorted set: id by the sequence number of its deletion
-- Fields of info: seq, the newest sequence number; low_watermark; series_initialized, which is 1 while these
-- keys belong to this epoch of the shard; series_bytes, what the live series count as (name, labels, help,
-- unit); tombstone_bytes, the names and labels of the deleted ones.
local DELETED = '\128\0\0\0\0\0' .. string.rep('\0', 21)
local MAX_DUE = 500
-- The most tombstones that one script trims beyond those that it wrote itself: only a lowered limit leaves more.
local MAX_TRIMMED = 1000
local retention_ms = tonumber(ARGV[2])
local stored =
  redis.call('HMGET', info, 'seq', 'series_initialized', 'series_bytes', 'tombstone_bytes')
local live_bytes, tombstone_bytes = tonumber(stored[3] or 0), tonumber(stored[4] or 0)
local seq = tonumber(stored[1])

-- Any of the keys may be lost alone, info as well, where somebody deletes it or Redis evicts keys. A part of
-- an index is worse than none: the rest is deleted, and no earlier cursor is honoured.
local function is_whole()
  local live, deleted = redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[6])
  return redis.call('ZCARD', KEYS[4]) == live and redis.call('HLEN', KEYS[5]) == deleted
    and redis.call('ZCARD', KEYS[3]) == live + deleted
end
if not stored[2] or not is_whole() then
  redis.call('UNLINK', unpack(KEYS, 2, 6))
  if stored[2] then
    -- `info` is not new, so its epoch may be part of a cursor.
    epoch = string.sub(redis.sha1hex(epoch .. 'series' .. whole(now_us)), 1, 16)
    redis.call('HINCRBY', info, 'epoch_started', 1)
  end
  redis.call('HSET', info, 'series_initialized', 1, 'epoch', epoch)
  redis.call('HSET', info, 'series_bytes', 0, 'tombstone_bytes', 0)
  live_bytes, tombstone_bytes = 0, 0
end

local HAS_ROLE = 8388608

-- Returns where the metadata of a record begins: behind the role and the byte of its length, where it has one.
local function metadata_at(record)
  return string.byte(record, 7) < 128 and 24 or 25 + string.byte(record, 24)
end

-- Returns the milliseconds and nanoseconds of a record, and its score.
local function time_of(record)
  local ms, nanos, score = struct.unpack('>i6I3i6', record)
  return ms, nanos % HAS_ROLE, score
end

-- Returns how many bytes a record counts as: without its fixed part of 35 bytes, the 5 of metadata, and the role.
local function bytes_of(record)
  local at = metadata_at(record)
  return #record - (at - 24) - (struct.unpack('>I4', record, at) > 0 and 40 or 35)
end

-- Returns how many bytes of names and labels some tombstones have.
local function bytes_of_tombstones(ids)
  local sum = 0
  for from = 1, #ids, 1000 do
    local keys = redis.call('HMGET', KEYS[5], unpack(ids, from, math.min(from + 999, #ids)))
    for _, key in ipairs(keys) do
      if key then
        sum = sum + #key - 8
      end
    end
  end
  return sum
end

-- Calls a command with any number of arguments, which come in pairs or alone.
local function in_chunks(command, key, arguments)
  for from = 1, #arguments, 4000 do
    redis.call(command, key, unpack(arguments, from, math.min(from + 3999, #arguments)))
  end
end

-- Trims the oldest tombstones beyond the limits, at most as many as were written and some more. Cursors below the last
-- trimmed one are gone.
local function trim_tombstones(written)
  local most, most_bytes = string.match(ARGV[3], '(%d+) (%d+)')
  most_bytes = tonumber(most_bytes)
  local left = written + MAX_TRIMMED
  local over = math.min(redis.call('ZCARD', KEYS[6]) - tonumber(most), left)
  while over > 0 or (tombstone_bytes > most_bytes and left > 0) do
    -- One by one where only their bytes are too many: few then, since each is large.
    local step = math.min(math.max(over, 1), 1000)
    local oldest = redis.call('ZRANGE', KEYS[6], 0, step - 1)
    if #oldest == 0 then
      tombstone_bytes = 0
      break
    end
    tombstone_bytes = tombstone_bytes - bytes_of_tombstones(oldest)
    local low_watermark = redis.call('ZSCORE', KEYS[6], oldest[#oldest])
    redis.call('HDEL', KEYS[5], unpack(oldest))
    redis.call('ZREM', KEYS[6], unpack(oldest))
    redis.call('ZREM', KEYS[3], unpack(oldest))
    redis.call('HSET', info, 'low_watermark', low_watermark, 'tombstone_bytes', whole(tombstone_bytes))
    over, left = over - step, left - step
  end
end

-- Deletes live series, each under a sequence number of its own, and writes their tombstones.
local function delete_series(ids, records)
  if #ids == 0 then
    return
  end
  local tombstones, log = {}, {}
  for i, id in ipairs(ids) do
    local at = metadata_at(records[i])
    local metadata_bytes = struct.unpack('>I4', records[i], at)
    seq = seq + 1
    tombstones[2 * i - 1] = id
    local key = string.sub(records[i], at + 4 + metadata_bytes)
    tombstones[2 * i] = key
    live_bytes = live_bytes - bytes_of(records[i])
    tombstone_bytes = tombstone_bytes + #key - 8
    log[2 * i - 1] = seq
    log[2 * i] = id
  end
  -- Frees memory first: a full Redis lets a script continue that began with a deletion.
  in_chunks('HDEL', KEYS[2], ids)
  in_chunks('ZREM', KEYS[4], ids)
  redis.call('HSET', info, 'seq', whole(seq), 'series_bytes', whole(live_bytes))
  redis.call('HSET', info, 'tombstone_bytes', whole(tombstone_bytes))
  in_chunks('ZADD', KEYS[3], log)
  in_chunks('HSET', KEYS[5], tombstones)
  in_chunks('ZADD', KEYS[6], log)
  trim_tombstones(#ids)
end

-- Deletes series whose sample is at or before `oldest`. Returns how many, and whether more may be due.
local function expire(oldest)
  local due = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', whole(oldest), 'LIMIT', 0, MAX_DUE)
  if #due == 0 then
    return 0, false
  end
  local ids, records, later = {}, {}, {}
  for from = 1, #due, 1000 do
    local to = math.min(from + 999, #due)
    local found = redis.call('HMGET', KEYS[2], unpack(due, from, to))
    for i = from, to do
      local record = found[i - from + 1]
      local ms, nanos = time_of(record)
      if nanos > 0 then
        ms = ms + 1
      end
      if ms <= oldest then
        ids[#ids + 1] = due[i]
        records[#records + 1] = record
      else
        -- It was updated since it was put there.
        later[#later + 1] = ms
        later[#later + 1] = due[i]
      end
    end
  end
  if #later > 0 then
    -- Deletes first, as above: a full Redis must neither refuse reads nor keep what has expired.
    redis.call('ZREM', KEYS[4], later[2])
    in_chunks('ZADD', KEYS[4], later)
  end
  delete_series(ids, records)
  return #ids, #due == MAX_DUE
end

trim_tombstones(0)
local expired = 0
-- A sample at or before this is past the retention.
local oldest
if retention_ms > 0 then
  oldest = now_ms - retention_ms
  local more
  expired, more = expire(oldest)
  if more then
    -- No script may see what is due, so the client runs it again until nothing is.
    return { ok = 'DUE ' .. expired }
  end
end
