-- Returns the server's time, and the shard's epoch, which `epoch_check.lua` may just have started, with the highest
-- numbers of the shard: {time in microseconds, epoch, epoch_started, seq, last_token, last_bump}. KEYS: info. ARGV: now.
local numbers = redis.call('HMGET', info, 'epoch_started', 'seq', 'last_token', 'last_bump')
return { whole(server_us), epoch, numbers[1] or '0', unpack(numbers, 2) }
