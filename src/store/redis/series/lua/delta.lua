-- Reads changes, oldest first.
-- ARGV: .., after, up to (empty = the newest), limit, 'log' | 'fresh' | 'fresh more'.
-- A fresh reader knows no series yet, and needs no tombstones.
-- Returns {epoch, gone} | {epoch, head, next, more, count, chunks..}.
local after, limit, mode = ARGV[4], tonumber(ARGV[6]), ARGV[7]
-- All steps of a reader end at the head that its first step found.
local head = ARGV[5] == '' and seq or tonumber(ARGV[5])
local low_watermark = tonumber(redis.call('HGET', info, 'low_watermark'))
-- A sequence number that this shard has not reached is from a lost past.
local gone = tonumber(after) > seq or head > seq
if mode == 'log' then
  gone = gone or tonumber(after) < low_watermark
elseif mode == 'fresh more' then
  -- A series that an earlier step read may have been deleted since, and its tombstone trimmed. Deletions up
  -- to the head happened before the first step, so this reader has not seen what they deleted.
  gone = gone or low_watermark > head
end
if gone then
  return { epoch, 'gone' }
end
local ids =
  redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. after, whole(head), 'LIMIT', 0, whole(limit))
-- The sequence number that this step reads to: the head, unless the limit ends it before.
local reached, more = whole(head), 0
if #ids == limit then
  reached = limit > 0 and redis.call('ZSCORE', KEYS[3], ids[limit]) or after
  if redis.call('ZCOUNT', KEYS[3], '(' .. reached, whole(head)) > 0 then
    more = 1
  else
    reached = whole(head)
  end
end
local reply = { epoch, whole(head), reached, more, 0 }
local count = 0
for from = 1, #ids, 1000 do
  local to = math.min(from + 999, #ids)
  local found = redis.call('HMGET', KEYS[2], unpack(ids, from, to))
  local chunk, keys = {}, nil
  for i = 1, to - from + 1 do
    if found[i] then
      chunk[#chunk + 1] = found[i]
    elseif mode == 'log' then
      -- What is in the log and not live has a tombstone. Their keys are read once, where there is any.
      keys = keys or redis.call('HMGET', KEYS[5], unpack(ids, from, to))
      chunk[#chunk + 1] = DELETED .. keys[i]
    end
  end
  count = count + #chunk
  reply[#reply + 1] = table.concat(chunk)
end
reply[5] = count
return reply
