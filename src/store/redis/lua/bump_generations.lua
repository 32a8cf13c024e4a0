-- Raises each key by one; gives number and fence of each. KEYS: info, generations,
-- generation_ages. ARGV: now, keys, none of them twice.
-- The ages are the keys by the time of their last bump, in microseconds.
local rows = redis.call('HMGET', KEYS[2], unpack(ARGV, 2))
local raised, ages, answer = {}, {}, {}
for i = 1, #ARGV - 1 do
  local number = parts_of(rows[i]) + 1
  -- No place is given twice, and after a loss of writes the clock is beyond all that were given.
  last_bump = math.max(last_bump + 1, now_us)
  raised[2 * i - 1] = ARGV[i + 1]
  raised[2 * i] = whole(number) .. ':' .. whole(last_bump)
  ages[2 * i - 1] = whole(now_us)
  ages[2 * i] = ARGV[i + 1]
  answer[2 * i - 1] = number
  answer[2 * i] = last_bump
end
local added = redis.call('HSET', KEYS[2], unpack(raised))
redis.call('HSET', info, 'bump', whole(last_bump), 'generation_count', generation_count + added)
redis.call('ZADD', KEYS[3], unpack(ages))
return answer
