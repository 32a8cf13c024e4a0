-- Binds event ids, in their own shards, to the contents and shards that their updates are merged in. Returns the
-- positions of those that are bound otherwise, and then binds none. The error LIMIT: there is no room for all of them.
-- KEYS: info, event_ids, event_id_ends. ARGV: now, the most event ids of the shard, the period in milliseconds, and of
-- each: id, what its entry has behind the end.
local count = (#ARGV - 3) / 2
local ids, entries, ends, others, new = {}, {}, {}, {}, 0
for i = 1, count do
  ids[i] = ARGV[2 + 2 * i]
end
local found = redis.call('HMGET', KEYS[2], unpack(ids))
local until_ms = up_ms + tonumber(ARGV[3])
for i = 1, count do
  local entry, bound = live(found[i]), ARGV[3 + 2 * i]
  local id_ends = until_ms
  if entry == '' then
    new = new + 1
  elseif string.sub(entry, 7) ~= bound then
    others[#others + 1] = i
  else
    -- It was bound by an attempt that failed. The claim will last from now on, and this as long.
    id_ends = math.max(id_ends, (struct.unpack('>I6', entry)))
  end
  entries[2 * i - 1] = ids[i]
  entries[2 * i] = struct.pack('>I6', id_ends) .. bound
  ends[2 * i - 1] = whole(id_ends)
  ends[2 * i] = ids[i]
end
if #others > 0 then
  return others
end
if new > 0
  and redis.call('ZCOUNT', KEYS[3], '(' .. whole(now_ms), '+inf') + new > tonumber(ARGV[2]) then
  return redis.error_reply('LIMIT event_ids')
end
redis.call('HSET', KEYS[2], unpack(entries))
redis.call('ZADD', KEYS[3], unpack(ends))
return others
