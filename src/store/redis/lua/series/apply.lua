-- Applies a part of a batch, all or nothing.
-- ARGV: .., fence (3), hold or nothing, 1 where this is the shard's last part, 1 where an id stands
-- twice, metadata (>I4 and text each), ids (c16 each), points (>I2 index of metadata or 0, >i6 I3
-- time, 8 bytes of value, >I4 and key each).
-- Answers {refused} | {short, new, room} | {applied, created, updated, stale, seq}.
if fence_refused(ARGV[4], ARGV[5], ARGV[6]) then
  return { 'refused' }
end
local hold, repeats, all_ids, points = ARGV[7], ARGV[9] == '1', ARGV[11], ARGV[12]
local pack, part, unpacked = struct.pack, string.sub, struct.unpack
local metadata = {}
do
  local at, all = 1, ARGV[10]
  while at <= #all do
    local bytes = unpacked('>I4', all, at)
    metadata[#metadata + 1] = part(all, at, at + 3 + bytes)
    at = at + 4 + bytes
  end
end
local ON_ARRIVAL, NO_METADATA = -140737488355328, '\0\0\0\0'
local first_seq = seq
local changed, moved, created = {}, {}, {}
local current = {}
local new, updated, stale, n = 0, 0, 0, 0
local at = 1
local total = #all_ids / 16
local late_ms = retention_ms / 4
for from = 1, total, 1000 do
  local count = math.min(1000, total - from + 1)
  local ids = { unpacked('>' .. string.rep('c16', count), all_ids, 16 * from - 15) }
  ids[count + 1] = nil
  local found = redis.call('HMGET', KEYS[2], unpack(ids, 1, count))
  for i = 1, count do
    local id = ids[i]
    local meta, ms, nanos, value, bytes, key_at = unpacked('>I2i6I3c8I4', points, at)
    at = key_at + bytes
    local old = repeats and current[id] or found[i]
    local record
    if oldest and ms ~= ON_ARRIVAL and (ms < oldest or (ms == oldest and nanos == 0)) then
      stale = stale + 1
    elseif old then
      local old_ms, old_nanos, placed = unpacked('>i6I3i6', old)
      if ms == ON_ARRIVAL then
        -- A finer time of the same millisecond is not older.
        ms, nanos = now_ms, 0
        if old_ms == ms then
          nanos = old_nanos
        end
      end
      if ms < old_ms or (ms == old_ms and nanos < old_nanos) then
        stale = stale + 1
      else
        updated = updated + 1
        local tail
        local meta_text = metadata[meta]
        if not meta_text or part(old, 24, 23 + #meta_text) == meta_text then
          if ms ~= old_ms or nanos ~= old_nanos or part(old, 16, 23) ~= value then
            tail = part(old, 24)
          end
        else
          tail = meta_text .. part(old, 28 + unpacked('>I4', old, 24))
        end
        if tail then
          if ms - placed >= late_ms then
            placed = nanos > 0 and ms + 1 or ms
            moved[#moved + 1] = placed
            moved[#moved + 1] = id
          end
          record = pack('>i6I3i6', ms, nanos, placed) .. value .. tail
        end
      end
    else
      if ms == ON_ARRIVAL then
        ms, nanos = now_ms, 0
      end
      local placed = nanos > 0 and ms + 1 or ms
      new = new + 1
      created[new] = id
      moved[#moved + 1] = placed
      moved[#moved + 1] = id
      record = pack('>i6I3i6', ms, nanos, placed) .. value
        .. (metadata[meta] or NO_METADATA) .. part(points, key_at, at - 1)
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
local mine = hold ~= '' and redis.call('HGET', KEYS[7], hold)
mine = mine and tonumber(string.match(mine, '^%d+')) or 0
if new > mine and new > quota - live - held + mine then
  return { 'short', new, quota - live - held + mine }
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
    in_chunks('HDEL', KEYS[5], created)
    in_chunks('ZREM', KEYS[6], created)
  end
  redis.call('HSET', info, 'seq', whole(seq))
end
if hold ~= '' and (new > 0 or ARGV[8] == '1') then
  local ends_ms = redis.call('ZSCORE', KEYS[8], hold)
  local size, known = end_hold(hold)
  if ends_ms and ARGV[8] ~= '1' then
    begin_hold(hold, math.max(size - new, 0), known, ends_ms)
  end
end
return { 'applied', new, updated, stale, whole(seq) }
