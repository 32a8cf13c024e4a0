-- Reads changes, oldest first.
-- ARGV: .., after, up to (empty = the newest), limit, 'log' | 'fresh' | 'fresh more', the most bytes: one series is
-- read however large it is.
-- A fresh reader knows no series yet, and needs no tombstones.
-- Returns {epoch, gone} | {epoch, head, next, more, count, chunks..}.
local after, limit, mode, max_bytes = ARGV[4], tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
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
local reply = { epoch, whole(head), whole(head), 0, 0 }
-- Series are read in steps: first a few, then as many as may fit, judged by those before.
local count, bytes, read, step = 0, 0, 0, 4
while read < #ids and bytes < max_bytes do
  local from, to = read + 1, math.min(read + step, #ids)
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
  local text = table.concat(chunk)
  reply[#reply + 1] = text
  bytes = bytes + #text
  read = to
  local average = bytes / read + 1
  step = math.max(1, math.min(1000, math.floor((max_bytes - bytes) / average)))
end
reply[5] = count
if read == #ids and #ids < limit then
  return reply
end
-- The sequence number that this step reads to: the head, unless a limit ended it before.
local reached = read > 0 and redis.call('ZSCORE', KEYS[3], ids[read]) or after
if redis.call('ZCOUNT', KEYS[3], '(' .. reached, whole(head)) > 0 then
  reply[3], reply[4] = reached, 1
end
return reply
