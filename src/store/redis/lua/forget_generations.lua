-- Forgets keys that were not bumped for a time; gives how many. KEYS: info, generations,
-- generation_ages. ARGV: now, the time in microseconds, how many at most.
local cutoff = whole(now_us - tonumber(ARGV[2]))
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', cutoff, 'LIMIT', 0, ARGV[3])
if #due == 0 then
  return 0
end
local rows = redis.call('HMGET', KEYS[2], unpack(due))
for i = 1, #due do
  local _, bump = parts_of(rows[i])
  bump_floor = math.max(bump_floor, bump)
end
-- First the floor: what is forgotten must not make an old fence hold.
redis.call('HSET', info, 'bump_floor', whole(bump_floor))
local removed = redis.call('HDEL', KEYS[2], unpack(due))
redis.call('HSET', info, 'generation_count', generation_count - removed)
redis.call('ZREM', KEYS[3], unpack(due))
return #due
