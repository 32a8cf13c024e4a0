-- Changes the shard's share of the budget. ARGV: .., what, the budget's epoch, quota, version.
-- Answers {adopt} where the quota was granted by another life of the budget; else {quota, version}.
local what, by = ARGV[4], ARGV[5]
local version = tonumber(redis.call('HGET', info, 'quota_version') or 0)
if quota_lost then
  version = 0
end
if redis.call('HGET', info, 'budget') ~= by then
  if what ~= 'adopt' then
    return { 'adopt' }
  end
  version = 0
elseif what ~= 'adopt' and tonumber(ARGV[7]) > version then
  -- Granted, and not heard of before.
  quota, version = tonumber(ARGV[6]), tonumber(ARGV[7])
end
if what == 'shrink' then
  quota = math.min(quota, live + held)
end
redis.call('HSET', info, 'budget', by, 'quota', whole(quota), 'quota_version', whole(version))
redis.call('HSET', info, 'quota_epoch', epoch)
return { 'is', quota, version }
