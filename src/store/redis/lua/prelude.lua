-- The time in microseconds since 1970: the server's, or a test's.
local now_us
-- The first whole millisecond that is not before now: what a promise of time is counted from.
local up_ms
if ARGV[1] ~= '' then
  -- A plus sign says that a part of a microsecond has passed.
  local digits, more = string.match(ARGV[1], '^(%d+)(%+?)$')
  now_us = tonumber(digits)
  up_ms = math.ceil((now_us + (more == '+' and 1 or 0)) / 1000)
else
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
  up_ms = math.ceil((now_us + 1) / 1000)
end
-- The same in whole milliseconds.
local now_ms = math.floor(now_us / 1000)
-- What the shard knows of itself. A shard that was never used, or was wiped, has no epoch.
local info = KEYS[1]
local epoch = redis.call('HGET', info, 'epoch')
if not epoch then
  return redis.error_reply('UNBORN this shard has no epoch')
end
-- A whole number as text: tostring would round large ones.
local function whole(number)
  return string.format('%.0f', number)
end
