-- Gives a shard its epoch, unless it has one. KEYS: info. ARGV: now, epoch, run id.
-- Has no prelude.
local now_us
if ARGV[1] ~= '' then
  now_us = tonumber(string.match(ARGV[1], '^%d+'))
else
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end
if redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2]) == 1 then
  local now = string.format('%.0f', now_us)
  -- No fence of an earlier life holds, and no token of one is given again.
  redis.call('HSET', KEYS[1], 'seq', 0, 'floor', 0, 'token', now, 'bump', now, 'bump_floor', now)
end
return redis.call('HGET', KEYS[1], 'epoch')
