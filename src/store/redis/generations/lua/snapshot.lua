-- Returns number and fence of each key, flat. KEYS: info, generations. ARGV: now, keys.
local records = redis.call('HMGET', KEYS[2], unpack(ARGV, 2))
local reply = {}
for i = 1, #ARGV - 1 do
  local number, bump = parts_of(records[i])
  reply[2 * i - 1] = number
  reply[2 * i] = math.max(bump, minimum_fence)
end
return reply
