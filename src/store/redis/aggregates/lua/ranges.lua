-- Reads the values in ranges of keys, in order, up to a number of bytes and of keys. Returns the number of the range to
-- continue in, 0 at the end; where to begin there; and of each live value: the number of its range, key, record.
-- KEYS: info, aggregates, aggregate_keys. ARGV: now, keys of one step, the most bytes, the most keys, and of each range
-- where it begins and ends, as ZRANGEBYLEX takes it.
local step, budget, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local reply, bytes, looked_at = { 0, '' }, 0, 0
for range = 1, (#ARGV - 4) / 2 do
  local from, to = ARGV[3 + 2 * range], ARGV[4 + 2 * range]
  local count
  repeat
    if bytes >= budget or looked_at >= most then
      reply[1], reply[2] = range, from
      return reply
    end
    count = math.min(step, most - looked_at)
    local keys = redis.call('ZRANGEBYLEX', KEYS[3], from, to, 'LIMIT', 0, count)
    if #keys > 0 then
      local records = redis.call('HMGET', KEYS[2], unpack(keys))
      for i, key in ipairs(keys) do
        local record = live(records[i])
        if record ~= '' then
          reply[#reply + 1] = range
          reply[#reply + 1] = key
          reply[#reply + 1] = record
          bytes = bytes + #record + #key
        end
      end
      from = '(' .. keys[#keys]
    end
    looked_at = looked_at + #keys
    count = count - #keys
  until count > 0
end
return reply
