-- Starts a new epoch when another server process serves the shard than the one that the shard remembers:
-- a restarted one, perhaps with an older file, or a replica that took over. Acknowledged writes may be
-- lost then, so earlier cursors and fences become invalid. In the same step as the script that includes
-- this, so that no script acts on the lost past first.
-- Fields of info: epoch, run_id, last_token, last_bump, minimum_fence.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not run_id then
  return redis.error_reply('ERR the server does not tell its run id')
end
if redis.call('HGET', info, 'run_id') ~= run_id then
  local before = redis.call('HMGET', info, 'last_token', 'last_bump')
  -- Lost tokens and bumps were at most the time at which they were issued, so the time is above them, as
  -- far as the clocks of the servers agree. What was not lost is below by one at least.
  local token = whole(math.max(tonumber(before[1]) + 1, now_us))
  local bump = whole(math.max(tonumber(before[2]) + 1, now_us))
  -- A process may come back to a shard. The epoch before is part of the hash, so that none repeats.
  epoch = string.sub(redis.sha1hex(epoch .. run_id .. whole(now_us)), 1, 16)
  -- Deletes first: a full Redis lets a script continue that began with a deletion.
  redis.call('HDEL', info, 'run_id')
  redis.call('HSET', info, 'run_id', run_id, 'epoch', epoch, 'last_token', token,
    'last_bump', bump, 'minimum_fence', bump)
end
