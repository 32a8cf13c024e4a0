-- Claims each key that is free. Returns for each key whether it was acquired and its end in milliseconds, flat; or the
-- error LIMIT, when there is no room for all that are free, and then claims none.
-- KEYS: info, locks, lock_tokens, lock_names. ARGV: now, ttl in milliseconds, the most locks of the shard, the token
-- under which they are held, keys, none of them twice. `locks` is a sorted set of keys by their ends in milliseconds,
-- `lock_tokens` a hash of their tokens, `lock_names` a sorted set of keys in their order.
local ends = whole(up_ms + tonumber(ARGV[2]))
local reply, claims, tokens, names = {}, {}, {}, {}
for from = 5, #ARGV, 1000 do
  local to = math.min(from + 999, #ARGV)
  local held = redis.call('ZMSCORE', KEYS[2], unpack(ARGV, from, to))
  for i = from, to do
    local held_until = held[i - from + 1] and tonumber(held[i - from + 1])
    if held_until and held_until > now_ms then
      reply[#reply + 1] = 0
      reply[#reply + 1] = whole(held_until)
    else
      -- Free, or expired and not yet purged.
      claims[#claims + 1] = ends
      claims[#claims + 1] = ARGV[i]
      tokens[#tokens + 1] = ARGV[i]
      tokens[#tokens + 1] = ARGV[4]
      names[#names + 1] = 0
      names[#names + 1] = ARGV[i]
      reply[#reply + 1] = 1
      reply[#reply + 1] = ends
    end
  end
end
local live = #claims > 0 and redis.call('ZCOUNT', KEYS[2], '(' .. whole(now_ms), '+inf') or 0
if #claims > 0 and live + #claims / 2 > tonumber(ARGV[3]) then
  return redis.error_reply('LIMIT locks')
end
for from = 1, #claims, 2000 do
  local to = math.min(from + 1999, #claims)
  redis.call('ZADD', KEYS[2], unpack(claims, from, to))
  redis.call('HSET', KEYS[3], unpack(tokens, from, to))
  redis.call('ZADD', KEYS[4], unpack(names, from, to))
end
return reply
