-- Notes the signatures of pipelines, unless another replica has changed one since they were read: then it returns 0.
-- KEYS: info, pipelines. ARGV: now, and of each pipeline its name, the signature that was read ('' for none), the new one.
for i = 2, #ARGV, 3 do
  if (redis.call('HGET', KEYS[2], ARGV[i]) or '') ~= ARGV[i + 1] then
    return 0
  end
end
for i = 2, #ARGV, 3 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
end
return 1
