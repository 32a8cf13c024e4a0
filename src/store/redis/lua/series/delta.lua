-- Reads changes, oldest first.
-- ARGV: .., after, up to (nothing = the newest), limit, 'log' | 'fresh' | 'fresh more'.
-- A fresh reader knows no series yet, and needs no tombstones.
-- Answers {epoch, gone} | {epoch, head, next, more, count, chunks..}.
local after, limit, mode = ARGV[4], tonumber(ARGV[6]), ARGV[7]
local head = ARGV[5] == '' and seq or tonumber(ARGV[5])
local floor = tonumber(redis.call('HGET', info, 'floor'))
local gone = tonumber(after) > seq or head > seq
if mode == 'log' then
  gone = gone or tonumber(after) < floor
elseif mode == 'fresh more' then
  -- What was read before may have been deleted, and that forgotten.
  gone = gone or floor > head
end
if gone then
  return { epoch, 'gone' }
end
local ids =
  redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. after, whole(head), 'LIMIT', 0, whole(limit))
local reached, more = whole(head), 0
if #ids == limit then
  reached = limit > 0 and redis.call('ZSCORE', KEYS[3], ids[limit]) or after
  if redis.call('ZCOUNT', KEYS[3], '(' .. reached, whole(head)) > 0 then
    more = 1
  else
    reached = whole(head)
  end
end
local answer = { epoch, whole(head), reached, more, 0 }
local count = 0
for from = 1, #ids, 1000 do
  local to = math.min(from + 999, #ids)
  local found = redis.call('HMGET', KEYS[2], unpack(ids, from, to))
  local chunk, keys = {}, nil
  for i = 1, to - from + 1 do
    if found[i] then
      chunk[#chunk + 1] = found[i]
    elseif mode == 'log' then
      keys = keys or redis.call('HMGET', KEYS[5], unpack(ids, from, to))
      chunk[#chunk + 1] = DEAD .. keys[i]
    end
  end
  count = count + #chunk
  answer[#answer + 1] = table.concat(chunk)
end
answer[5] = count
return answer
