-- Returns the signatures of pipelines, '' for those that are not known. KEYS: info, pipelines. ARGV: now, names.
local reply = {}
for i = 2, #ARGV do
  reply[i - 1] = redis.call('HGET', KEYS[2], ARGV[i]) or ''
end
return reply
