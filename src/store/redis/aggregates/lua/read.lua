-- Reads what a merge depends on. Changes nothing. Returns the time in milliseconds, the number of live values, of live
-- event ids and of live producers, how many keys it did, and then entries, '' where there is no live one: the records of
-- these keys, event ids, claims, producers, marks.
-- KEYS: info, aggregates, aggregate_ends, event_ids, event_id_ends, event_claims, producers, producer_ends,
-- producer_marks. ARGV: now, keys of one step, the most bytes of records, how many keys, event ids, claims, producers and
-- marks there are (5), and these.
local reply = {
  whole(now_ms),
  redis.call('HLEN', KEYS[2]) - redis.call('ZCOUNT', KEYS[3], '-inf', whole(now_ms)),
  redis.call('ZCOUNT', KEYS[5], '(' .. whole(now_ms), '+inf'),
  redis.call('ZCOUNT', KEYS[8], '(' .. whole(now_ms), '+inf'),
  0,
}
local at = 9
local last = at + tonumber(ARGV[4]) - 1
reply[5] = add_values(reply, at, last, tonumber(ARGV[2]), tonumber(ARGV[3]))
at = last + 1
for i, key in ipairs({ KEYS[4], KEYS[6], KEYS[7], KEYS[9] }) do
  last = at + tonumber(ARGV[4 + i]) - 1
  if at <= last then
    local found = redis.call('HMGET', key, unpack(ARGV, at, last))
    for n = 1, last - at + 1 do
      reply[#reply + 1] = live(found[n])
    end
  end
  at = last + 1
end
return reply
