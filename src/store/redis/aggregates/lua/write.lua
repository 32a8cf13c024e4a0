-- Writes merged values, and what makes their updates count once: all of it, or nothing. Returns what `fence.lua` says,
-- `conflict` where anything is otherwise than the caller read it, or there is no room any more; else `done`.
-- KEYS: info, aggregates, aggregate_keys, aggregate_ends, event_ids, event_id_ends, event_claims, event_claim_ends,
-- producer_marks, producer_mark_ends, fences. ARGV: now, the fence (3), the new version, keys of one step, the most values
-- and the most event ids of the shard, the period in milliseconds, how many values, event ids, claims and marks there are
-- (4), and of each
--   value: key, the version that was read ('' for none), the end of a new value in milliseconds (0 for never), the ttl
--     in milliseconds (0 for none), the state
--   event id, claim: id, what its entry has behind the end. Those of event ids have their own shard here; claims are of
--     ids that are bound in another one
--   mark: the producer, what was read behind the end ('' for nothing), what is written there
-- aggregate_keys    sorted set: the keys of values in their order
-- aggregate_ends    sorted set: the keys of values that expire, by their ends. So are the other `_ends`.
local refusal = fence_refusal(ARGV[2], ARGV[3], ARGV[4])
if refusal then
  return refusal
end
local version, step, period = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[9])
local values, ids, claims, marks =
  tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])

-- Returns every `width`-th argument from `first` on.
local function column(first, width, count)
  local found = {}
  for i = 1, count do
    found[i] = ARGV[first + width * (i - 1)]
  end
  return found
end

local function in_chunks(command, key, arguments)
  for from = 1, #arguments, 2000 do
    redis.call(command, key, unpack(arguments, from, math.min(from + 1999, #arguments)))
  end
end

-- First everything is compared, and nothing is written.
local keys, records, new = column(14, 5, values), {}, 0
for from = 1, values, step do
  local to = math.min(from + step - 1, values)
  local found = redis.call('HMGET', KEYS[2], unpack(keys, from, to))
  for i = from, to do
    local record = live(found[i - from + 1])
    if string.sub(record, 7, 14) ~= ARGV[10 + 5 * i] then
      return 'conflict'
    end
    new = new + (record == '' and 1 or 0)
    -- What has expired and is not yet purged has its key already.
    records[i] = { found[i - from + 1] and true or false, record == '' and 0 or (struct.unpack('>I6', record)) }
  end
end
local ids_at = 14 + 5 * values
local claims_at = ids_at + 2 * ids
local marks_at = claims_at + 2 * claims
local all_ids, all_claims, producers =
  column(ids_at, 2, ids), column(claims_at, 2, claims), column(marks_at, 3, marks)
local function is_free(key, names)
  if #names > 0 then
    local found = redis.call('HMGET', key, unpack(names))
    for i = 1, #names do
      if live(found[i]) ~= '' then
        return false
      end
    end
  end
  return true
end
if not is_free(KEYS[5], all_ids) or not is_free(KEYS[7], all_claims) then
  return 'conflict'
end
if marks > 0 then
  local found = redis.call('HMGET', KEYS[9], unpack(producers))
  for i = 1, marks do
    if string.sub(live(found[i]), 7) ~= ARGV[marks_at + 3 * i - 2] then
      return 'conflict'
    end
  end
end
local now = whole(now_ms)
if new > 0
  and redis.call('HLEN', KEYS[2]) - redis.call('ZCOUNT', KEYS[4], '-inf', now) + new > tonumber(ARGV[7]) then
  return 'conflict'
end
if ids > 0 and redis.call('ZCOUNT', KEYS[6], '(' .. now, '+inf') + ids > tonumber(ARGV[8]) then
  return 'conflict'
end

local written, created, ends, endless = {}, {}, {}, {}
for i = 1, values do
  local at = 14 + 5 * (i - 1)
  local is_stored, value_ends, ttl = records[i][1], records[i][2], tonumber(ARGV[at + 3])
  if ARGV[at + 1] == '' then
    value_ends = tonumber(ARGV[at + 2])
  end
  if ttl > 0 then
    value_ends = math.max(value_ends, up_ms + ttl)
  end
  written[2 * i - 1] = keys[i]
  written[2 * i] = struct.pack('>I6', value_ends) .. version .. ARGV[at + 4]
  if not is_stored then
    created[#created + 1] = 0
    created[#created + 1] = keys[i]
  end
  if value_ends > 0 then
    ends[#ends + 1] = whole(value_ends)
    ends[#ends + 1] = keys[i]
  elseif is_stored and ARGV[at + 1] == '' then
    endless[#endless + 1] = keys[i]
  end
end
in_chunks('HSET', KEYS[2], written)
in_chunks('ZADD', KEYS[3], created)
in_chunks('ZADD', KEYS[4], ends)
in_chunks('ZREM', KEYS[4], endless)

-- Writes entries that end after the period, and their ends.
local function remember(key, ends_key, names, first, width)
  local entries, their_ends = {}, {}
  local until_ms = up_ms + period
  for i, name in ipairs(names) do
    entries[2 * i - 1] = name
    entries[2 * i] = struct.pack('>I6', until_ms) .. ARGV[first + width * (i - 1)]
    their_ends[2 * i - 1] = whole(until_ms)
    their_ends[2 * i] = name
  end
  in_chunks('HSET', key, entries)
  in_chunks('ZADD', ends_key, their_ends)
end
remember(KEYS[5], KEYS[6], all_ids, ids_at + 1, 2)
remember(KEYS[7], KEYS[8], all_claims, claims_at + 1, 2)
remember(KEYS[9], KEYS[10], producers, marks_at + 2, 3)
return 'done'
