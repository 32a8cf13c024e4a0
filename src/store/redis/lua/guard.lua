-- Notices that another server process serves the shard than the one it remembers: one that was
-- started again, perhaps with an older file, or a replica that took over. Acknowledged writes may be
-- lost then, so a new epoch begins: no cursor of before is honoured, and no fence of before holds.
-- In one step with what follows, so that nobody acts on the old ones first.
-- Of the shard's info: epoch, run_id, token, bump, bump_floor.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not run_id then
  return redis.error_reply('ERR the server does not tell its run id')
end
if redis.call('HGET', info, 'run_id') ~= run_id then
  local before = redis.call('HMGET', info, 'token', 'bump')
  local token = whole(math.max(tonumber(before[1]) + 1, now_us))
  local bump = whole(math.max(tonumber(before[2]) + 1, now_us))
  -- A process may come back to a shard: the epoch before takes part, so that none comes twice.
  epoch = string.sub(redis.sha1hex(epoch .. run_id .. whole(now_us)), 1, 16)
  -- Takes away first: a Redis that is full lets a script go on that has done so.
  redis.call('HDEL', info, 'run_id')
  redis.call('HSET', info, 'run_id', run_id, 'epoch', epoch, 'token', token, 'bump', bump,
    'bump_floor', bump)
end
