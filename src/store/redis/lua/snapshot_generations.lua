-- Gives number and fence of each key. KEYS: info, generations. ARGV: now, keys.
local rows = redis.call('HMGET', KEYS[2], unpack(ARGV, 2))
local answer = {}
for i = 1, #ARGV - 1 do
  local number, bump = parts_of(rows[i])
  answer[2 * i - 1] = number
  answer[2 * i] = math.max(bump, bump_floor)
end
return answer
