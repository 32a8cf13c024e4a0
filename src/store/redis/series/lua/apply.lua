-- Applies a chunk of a batch, all or nothing.
-- ARGV: .., fence (3), the shard's quota, 1 where an id may occur twice, metadata (>I4 and text each), ids
-- (c16 each), points (>I2 index of metadata or 0, >i6 I3 time, 8 bytes of value, >I4 and key each), how far in
-- milliseconds a sample may be ahead of the clock and win, the shard's quota of bytes, the writer's role (empty: the
-- series keep theirs), the roles whose series it may change, as roles.lua says.
-- Returns what `fence.lua` says | {others, how many, index, role..} | {over_quota, new, room} | {over_bytes, more, room}
-- | {applied, created, updated, stale, seq, room, room for bytes}.
local refusal = fence_refusal(ARGV[4], ARGV[5], ARGV[6])
if refusal then
  return refusal
end
local quota, repeats, all_ids, points = tonumber(ARGV[7]), ARGV[8] == '1', ARGV[10], ARGV[11]
local pack, sub, unpacked = struct.pack, string.sub, struct.unpack
local metadata = {}
do
  local at, all = 1, ARGV[9]
  while at <= #all do
    local bytes = unpacked('>I4', all, at)
    metadata[#metadata + 1] = sub(all, at, at + 3 + bytes)
    at = at + 4 + bytes
  end
end
local ON_ARRIVAL, NO_METADATA = -140737488355328, '\0\0\0\0'
-- changed: id, record, id, record; moved: score, id of `series_updates`; created: ids.
local changed, moved, created = {}, {}, {}
-- The records that this chunk wrote, where it may write a series twice.
local current = {}
local new, updated, stale, n, grown = 0, 0, 0, 0, 0
local at = 1
local total = #all_ids / 16
-- A score in `series_updates` may lag behind its sample by a quarter of the retention: fewer moves, while
-- what is due too early stays rare.
local late_ms = retention_ms / 4
local latest_ms = now_ms + tonumber(ARGV[12])
local role = ARGV[14]
-- As a record has it.
local role_part = role ~= '' and string.char(#role) .. role or ''
local role_bit = role ~= '' and HAS_ROLE or 0
local refuses, others = others_for(ARGV[15])
-- First all records are made, and nothing is written: the quota is checked behind this.
for from = 1, total, 1000 do
  local count = math.min(1000, total - from + 1)
  local ids = { unpacked('>' .. string.rep('c16', count), all_ids, 16 * from - 15) }
  -- The last value of unpack is the position behind the ids.
  ids[count + 1] = nil
  local found = redis.call('HMGET', KEYS[2], unpack(ids, 1, count))
  for i = 1, count do
    local id = ids[i]
    local meta, ms, nanos, value, bytes, key_at = unpacked('>I2i6I3c8I4', points, at)
    at = key_at + bytes
    local old = repeats and current[id] or found[i]
    local record
    -- Another's series is refused also where the point would change nothing: a refusal does not depend on times.
    if old and refuses(old, from + i - 2) then
      record = nil
    elseif oldest and ms ~= ON_ARRIVAL and (ms < oldest or (ms == oldest and nanos == 0)) then
      -- Past the retention already.
      stale = stale + 1
    elseif old then
      local old_ms, old_nanos, score = time_of(old)
      -- A sample that is so far ahead was written by a wrong clock, and wins against nothing.
      local ahead = old_ms > latest_ms or (old_ms == latest_ms and old_nanos > 0)
      if ms == ON_ARRIVAL then
        -- A point without a time is the newest when it arrives, also where the held sample has a later time: a
        -- finer one within this millisecond, or one of before the clock was set back.
        ms, nanos = now_ms, 0
        if old_ms >= ms and not ahead then
          ms, nanos = old_ms, old_nanos
        end
      end
      if not ahead and (ms < old_ms or (ms == old_ms and nanos < old_nanos)) then
        stale = stale + 1
      else
        updated = updated + 1
        -- The record from its metadata on, or nil where nothing changes, not even the time.
        local tail
        local meta_at = metadata_at(old)
        local new_metadata = metadata[meta]
        local is_grown = new_metadata and sub(old, meta_at, meta_at + #new_metadata - 1) ~= new_metadata
        if is_grown then
          tail = new_metadata .. sub(old, meta_at + 4 + unpacked('>I4', old, meta_at))
        elseif ms ~= old_ms or nanos ~= old_nanos or sub(old, 16, 23) ~= value
          or (role ~= '' and role_of(old) ~= role) then
          tail = sub(old, meta_at)
        end
        if tail then
          local up = nanos > 0 and ms + 1 or ms
          -- A sample that replaces a later one is due sooner.
          if ms - score >= late_ms or up < score then
            score = up
            moved[#moved + 1] = score
            moved[#moved + 1] = id
          end
          if role ~= '' then
            record = pack('>i6I3i6', ms, nanos + role_bit, score) .. value .. role_part .. tail
          else
            -- The role stays, if there is one.
            local old_bit = meta_at > 24 and HAS_ROLE or 0
            record = pack('>i6I3i6', ms, nanos + old_bit, score) .. value
              .. sub(old, 24, meta_at - 1) .. tail
          end
          if is_grown then
            grown = grown + bytes_of(record) - bytes_of(old)
          end
        end
      end
    else
      if ms == ON_ARRIVAL then
        ms, nanos = now_ms, 0
      end
      local score = nanos > 0 and ms + 1 or ms
      new = new + 1
      created[new] = id
      moved[#moved + 1] = score
      moved[#moved + 1] = id
      record = pack('>i6I3i6', ms, nanos + role_bit, score) .. value .. role_part
        .. (metadata[meta] or NO_METADATA) .. sub(points, key_at, at - 1)
      grown = grown + bytes_of(record)
    end
    if record then
      if repeats then
        current[id] = record
      end
      n = n + 2
      changed[n - 1] = id
      changed[n] = record
    end
  end
end
if others() then
  return others()
end
-- The quota holds here, whatever was checked before: other writers may have used the room meanwhile. A chunk
-- without new series always fits, also after the budget was lowered.
if new > 0 then
  local room = quota - redis.call('HLEN', KEYS[2])
  if new > room then
    return { 'over_quota', new, math.max(room, 0) }
  end
end
-- What does not grow always fits, too.
if grown > 0 and grown > tonumber(ARGV[13]) - live_bytes then
  return { 'over_bytes', whole(grown), whole(math.max(tonumber(ARGV[13]) - live_bytes, 0)) }
end
if n > 0 then
  local log = {}
  for i = 1, n, 2 do
    seq = seq + 1
    log[i] = seq
    log[i + 1] = changed[i]
  end
  in_chunks('ZADD', KEYS[3], log)
  in_chunks('HSET', KEYS[2], changed)
  in_chunks('ZADD', KEYS[4], moved)
  if new > 0 and redis.call('HLEN', KEYS[5]) > 0 then
    -- A series that is created again has no tombstone any more: its newest change is this one.
    tombstone_bytes = tombstone_bytes - bytes_of_tombstones(created)
    redis.call('HSET', info, 'tombstone_bytes', whole(tombstone_bytes))
    in_chunks('HDEL', KEYS[5], created)
    in_chunks('ZREM', KEYS[6], created)
  end
  redis.call('HSET', info, 'seq', whole(seq), 'series_bytes', whole(live_bytes + grown))
end
local room = math.max(quota - redis.call('HLEN', KEYS[2]), 0)
local room_bytes = math.max(tonumber(ARGV[13]) - live_bytes - (n > 0 and grown or 0), 0)
return { 'applied', new, updated, stale, whole(seq), room, whole(room_bytes) }
