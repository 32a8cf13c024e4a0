-- What each script begins with: the caller's deadline, the time, and the check that the shard is initialized and
-- that this server may write it.
-- KEYS[1] is `info`, a hash of what the shard knows of itself: epoch, shards, run_id, last_token, and what
-- generations, series and the cache add.
-- ARGV[1] is `deadline,now,seen..`: the server's time in microseconds at which the caller gives up; a test's time in
-- microseconds, or empty; and what `epoch_check.lua` compares.

-- Returns a whole number as text: tostring would round large ones.
local function whole(number)
  return string.format('%.0f', number)
end
local server_us
do
  local time = redis.call('TIME')
  server_us = time[1] * 1000000 + time[2]
end
-- The time in microseconds since 1970: the server's, or a test's.
local now_us = server_us
-- A test's time with a plus sign means that a part of a microsecond has passed.
local part_us = 1
do
  local deadline, digits, more = string.match(ARGV[1], '^(%d+),(%d*)(%+?),')
  -- The command was held up on its way, and its caller has given up: what it would do now, another caller may
  -- have done and undone since. The server's time lets the client correct what it knows of this clock.
  if server_us > tonumber(deadline) then
    return redis.error_reply('LATE ' .. whole(server_us))
  end
  if digits ~= '' then
    now_us = tonumber(digits)
    part_us = more == '+' and 1 or 0
  end
end
-- The first whole millisecond that is not before now. Ends are counted from it, so that nothing expires
-- before its ttl has passed.
local up_ms = math.ceil((now_us + part_us) / 1000)
-- Now in whole milliseconds, rounded down. What ends at or before it has expired.
local now_ms = math.floor(now_us / 1000)
local info = KEYS[1]
-- A shard that was never used, or was wiped, has no epoch. The client initializes it, and runs the script
-- again.
local epoch = redis.call('HGET', info, 'epoch')
if not epoch then
  return redis.error_reply('UNINITIALIZED this shard has no epoch')
end
do
  -- Changes nothing, since the field exists, but only a master that may write accepts it: a replica, or a master
  -- that was demoted or is cut off from its replicas, would return what is out of date. A full Redis refuses it as
  -- well, by an error that comes after those, and must still serve reads.
  local probe = redis.pcall('HSETNX', info, 'epoch', '')
  if type(probe) == 'table' and probe.err then
    -- Redis 6.2 puts the line of the script and a minus sign before the error.
    local refusal = string.match(probe.err, '^@user_script: %d+: %-(.*)$') or probe.err
    if string.sub(refusal, 1, 4) ~= 'OOM ' then
      return redis.error_reply(refusal)
    end
  end
end
