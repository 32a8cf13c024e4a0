-- Starts the first epoch of a shard, unless it has one. Returns the number of shards that the data has.
-- KEYS: info. ARGV: now, epoch, number of shards.
-- Runs without the prelude, which requires an epoch.
local now_us = tonumber(string.match(ARGV[1], '^%d+,(%d*)'))
if not now_us then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end
-- The server process that serves the shard, see `epoch_check.lua`.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
-- Of racing replicas one sets the epoch; the others find it.
if redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2]) == 1 then
  local now = string.format('%.0f', now_us)
  -- Tokens and fences from before a wipe were at most the time then: the next ones are above them.
  redis.call('HSET', KEYS[1], 'seq', 0, 'low_watermark', 0, 'last_token', now, 'last_bump', now,
    'minimum_fence', now, 'epoch_started', now)
  redis.call('HSET', KEYS[1], 'run_id', run_id or '', 'shards', ARGV[3])
end
return redis.call('HGET', KEYS[1], 'shards')
