-- Notes the number of a producer's last batch, unless a later one is noted. The error LIMIT: there is no room for another
-- producer. KEYS: info, producers, producer_ends. ARGV: now, the most producers of the shard, the period in milliseconds,
-- the producer, the number in 20 digits.
local entry = live(redis.call('HGET', KEYS[2], ARGV[4]))
if entry == '' then
  if redis.call('ZCOUNT', KEYS[3], '(' .. whole(now_ms), '+inf') >= tonumber(ARGV[2]) then
    return redis.error_reply('LIMIT producers')
  end
elseif string.sub(entry, 7) >= ARGV[5] then
  return 0
end
local until_ms = up_ms + tonumber(ARGV[3])
redis.call('HSET', KEYS[2], ARGV[4], struct.pack('>I6', until_ms) .. ARGV[5])
redis.call('ZADD', KEYS[3], whole(until_ms), ARGV[4])
return 1
