-- Reads values. Returns how many keys it did, and their records.
-- KEYS: info, aggregates. ARGV: now, keys of one step, the most bytes, keys.
local reply = { 0 }
reply[1] = add_values(reply, 4, #ARGV, tonumber(ARGV[2]), tonumber(ARGV[3]))
return reply
