-- Raises the generation of each key by one. Returns number and fence of each, flat.
-- The error LIMIT: there is no room for all that are new, and nothing was changed.
-- KEYS: info, generations, generation_bumps. ARGV: now, the most keys of the shard, keys, none of them twice.
-- `generation_bumps` is a sorted set of keys by the time of their last bump, in microseconds.
local records = redis.call('HMGET', KEYS[2], unpack(ARGV, 3))
local raised, times, reply = {}, {}, {}
local new = 0
for i = 1, #ARGV - 2 do
  new = new + (records[i] and 0 or 1)
end
if new > 0 and generation_count + new > tonumber(ARGV[2]) then
  return redis.error_reply('LIMIT generations')
end
for i = 1, #ARGV - 2 do
  local number = parts_of(records[i]) + 1
  -- No sequence number repeats, also after a loss of bumps: the time is above all that were issued.
  last_bump = math.max(last_bump + 1, now_us)
  raised[2 * i - 1] = ARGV[i + 2]
  raised[2 * i] = whole(number) .. ':' .. whole(last_bump)
  times[2 * i - 1] = whole(now_us)
  times[2 * i] = ARGV[i + 2]
  reply[2 * i - 1] = number
  reply[2 * i] = last_bump
end
local added = redis.call('HSET', KEYS[2], unpack(raised))
redis.call('HSET', info, 'last_bump', whole(last_bump), 'generation_count', generation_count + added)
redis.call('ZADD', KEYS[3], unpack(times))
return reply
