-- What each script begins with: the time, and the check that the shard is initialized.
-- KEYS[1] is `info`, a hash of what the shard knows of itself: epoch, shards, run_id, last_token, and what
-- generations, series and the cache add. ARGV[1] is a test's time in microseconds, or empty.

-- The time in microseconds since 1970: the server's, or a test's.
local now_us
-- The first whole millisecond that is not before now. Ends are counted from it, so that nothing expires
-- before its ttl has passed.
local up_ms
if ARGV[1] ~= '' then
  -- A plus sign means that a part of a microsecond has passed.
  local digits, more = string.match(ARGV[1], '^(%d+)(%+?)$')
  now_us = tonumber(digits)
  up_ms = math.ceil((now_us + (more == '+' and 1 or 0)) / 1000)
else
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
  up_ms = math.ceil((now_us + 1) / 1000)
end
-- Now in whole milliseconds, rounded down. What ends at or before it has expired.
local now_ms = math.floor(now_us / 1000)
local info = KEYS[1]
-- A shard that was never used, or was wiped, has no epoch. The client initializes it, and runs the script
-- again.
local epoch = redis.call('HGET', info, 'epoch')
if not epoch then
  return redis.error_reply('UNINITIALIZED this shard has no epoch')
end
-- Returns a whole number as text: tostring would round large ones.
local function whole(number)
  return string.format('%.0f', number)
end
