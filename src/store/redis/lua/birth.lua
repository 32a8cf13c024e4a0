-- Gives a shard its epoch, unless it has one, and says of how many shards it is one.
-- KEYS: info. ARGV: now, epoch, number of shards.
-- Has no prelude.
local now_us
if ARGV[1] ~= '' then
  now_us = tonumber(string.match(ARGV[1], '^%d+'))
else
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end
-- Who serves it, see `guard.lua`.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2]) == 1 then
  local now = string.format('%.0f', now_us)
  -- No fence of an earlier life holds, and no token of one is given again.
  redis.call('HSET', KEYS[1], 'seq', 0, 'floor', 0, 'token', now, 'bump', now, 'bump_floor', now)
  redis.call('HSET', KEYS[1], 'run_id', run_id or '', 'shards', ARGV[3])
end
return redis.call('HGET', KEYS[1], 'shards')
