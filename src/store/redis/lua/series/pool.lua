-- The budget: what was granted to each shard, and how often. KEYS: info, budget.
-- ARGV: now, what, the most series, the number of shards, and
--   adopt: this budget's epoch, and for each shard its quota
--   returned: epoch, and for each shard its quota and version
--   grant: shard, how much more it needs
-- Answers {epoch, adopt} where not all shards are known; else {epoch, granted or empty, what is free,
-- and for each shard what it was granted, and the version of that}.
-- The hash has, for each shard, quota<n> and version<n>; and the epoch that it belongs to: after a loss of
-- data it is made again of what the shards have.
local what, most, shards = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if redis.call('HGET', KEYS[2], 'epoch') ~= epoch then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[2], 'epoch', epoch)
end
if what == 'adopt' then
  for shard = 0, shards - 1 do
    if ARGV[5] == epoch and redis.call('HSETNX', KEYS[2], 'quota' .. shard, ARGV[6 + shard]) == 1 then
      redis.call('HSET', KEYS[2], 'version' .. shard, 0)
    end
  end
end
if redis.call('HLEN', KEYS[2]) < 2 * shards + 1 then
  return { epoch, 'adopt' }
end
local quotas, versions, sum = {}, {}, 0
for shard = 0, shards - 1 do
  quotas[shard] = tonumber(redis.call('HGET', KEYS[2], 'quota' .. shard))
  versions[shard] = tonumber(redis.call('HGET', KEYS[2], 'version' .. shard))
  if what == 'returned' and ARGV[5] == epoch then
    local quota, version = tonumber(ARGV[6 + 2 * shard]), tonumber(ARGV[7 + 2 * shard])
    -- Of another version: more was granted meanwhile, and the shard did not know.
    if version == versions[shard] and quota < quotas[shard] then
      quotas[shard] = quota
      redis.call('HSET', KEYS[2], 'quota' .. shard, whole(quota))
    end
  end
  sum = sum + quotas[shard]
end
local free = most - sum
local answer = { epoch, 'empty', 0 }
if what == 'grant' then
  local shard, missing = tonumber(ARGV[5]), tonumber(ARGV[6])
  if missing <= free then
    -- Some more, so that not every new series asks.
    local more = missing + math.floor((free - missing) / (2 * shards))
    quotas[shard] = quotas[shard] + more
    versions[shard] = versions[shard] + 1
    free = free - more
    redis.call('HSET', KEYS[2], 'quota' .. shard, whole(quotas[shard]))
    redis.call('HSET', KEYS[2], 'version' .. shard, whole(versions[shard]))
    answer[2] = 'granted'
  end
end
answer[3] = free
for shard = 0, shards - 1 do
  answer[#answer + 1] = quotas[shard]
  answer[#answer + 1] = versions[shard]
end
return answer
