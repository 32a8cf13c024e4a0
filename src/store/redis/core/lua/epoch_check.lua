-- Starts a new epoch when the shard may have lost acknowledged writes: earlier cursors and fences become invalid.
-- Either another server process serves it than the one that it remembers (a restarted one, perhaps with an older
-- file, or a replica that took over); or the same process does, but its numbers are below those that the caller has
-- seen, or its epoch is from before the one that the caller knows (an old master is back). In the same step as the
-- script that includes this, so that no script acts on the lost past first.
-- Fields of info: epoch; epoch_started, a number that is greater for each later epoch; run_id, last_token, last_bump,
-- minimum_fence, seq.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not run_id then
  return redis.error_reply('ERR the server does not tell its run id')
end
do
  local stored =
    redis.call('HMGET', info, 'run_id', 'epoch_started', 'last_token', 'last_bump', 'seq')
  local started, token, bump = tonumber(stored[2] or 0), tonumber(stored[3]), tonumber(stored[4])
  local seen_started, seen_epoch, seen_seq, seen_token, seen_bump =
    string.match(ARGV[1], ',(%d+),(%x*),(%d+),(%d+),(%d+)$')
  seen_started, seen_token, seen_bump =
    tonumber(seen_started), tonumber(seen_token), tonumber(seen_bump)
  local behind = token < seen_token or bump < seen_bump or started < seen_started
  if seen_epoch == epoch then
    behind = behind or tonumber(stored[5]) < tonumber(seen_seq)
  elseif seen_epoch ~= '' then
    -- Another epoch has to be a later one.
    behind = behind or started == seen_started
  end
  if behind or stored[1] ~= run_id then
    -- Lost tokens and bumps were at most the time at which they were issued, so the time is above them, as
    -- far as the clocks of the servers agree. What was not lost, or was seen, is below by one at least.
    token = whole(math.max(token + 1, seen_token + 1, now_us))
    bump = whole(math.max(bump + 1, seen_bump + 1, now_us))
    started = whole(math.max(started + 1, seen_started + 1, now_us))
    -- A process may come back to a shard. The epoch before is part of the hash, so that none repeats.
    epoch = string.sub(redis.sha1hex(epoch .. run_id .. started), 1, 16)
    -- Deletes first: a full Redis lets a script continue that began with a deletion.
    redis.call('HDEL', info, 'run_id')
    redis.call('HSET', info, 'run_id', run_id, 'epoch', epoch, 'epoch_started', started,
      'last_token', token, 'last_bump', bump, 'minimum_fence', bump)
  end
end
