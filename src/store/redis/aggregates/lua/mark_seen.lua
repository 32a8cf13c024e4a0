-- Remembers events. Returns for each whether it was not remembered before. The error LIMIT: there is no room for all that
-- were not, and none is remembered. KEYS: info, event_ids, event_id_ends. ARGV: now, the most event ids of the shard, the
-- period in milliseconds, what an entry has behind the end, ids, none of them twice.
local found = redis.call('HMGET', KEYS[2], unpack(ARGV, 5))
local until_ms = up_ms + tonumber(ARGV[3])
local entry = struct.pack('>I6', until_ms) .. ARGV[4]
local reply, entries, ends = {}, {}, {}
for i = 1, #ARGV - 4 do
  local is_new = live(found[i]) == ''
  reply[i] = is_new and 1 or 0
  if is_new then
    entries[#entries + 1] = ARGV[4 + i]
    entries[#entries + 1] = entry
    ends[#ends + 1] = whole(until_ms)
    ends[#ends + 1] = ARGV[4 + i]
  end
end
if #entries > 0 then
  local held = redis.call('ZCOUNT', KEYS[3], '(' .. whole(now_ms), '+inf')
  if held + #entries / 2 > tonumber(ARGV[2]) then
    return redis.error_reply('LIMIT event_ids')
  end
  redis.call('HSET', KEYS[2], unpack(entries))
  redis.call('ZADD', KEYS[3], unpack(ends))
end
return reply
