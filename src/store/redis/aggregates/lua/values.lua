-- Reads what a shard holds of aggregates. Every entry begins with its end, >I6 in milliseconds, 0 for never.
-- KEYS[2] is `aggregates`, a hash: the key of a value, and its record: the end, 8 bytes of version, the state in the
-- stored form of its kind. A version is random, and another one after each change.

-- Returns an entry that has not expired, else ''.
local function live(entry)
  if entry then
    local ends = struct.unpack('>I6', entry)
    if ends == 0 or ends > now_ms then
      return entry
    end
  end
  return ''
end

-- Appends the live records of the keys ARGV[first] to ARGV[last] to a reply, '' where there is none, until they have
-- `budget` bytes. Reads `step` of them at a time. Returns how many keys it did.
local function add_values(reply, first, last, step, budget)
  local bytes, at = 0, first
  while at <= last and bytes < budget do
    local to = math.min(at + step - 1, last)
    local found = redis.call('HMGET', KEYS[2], unpack(ARGV, at, to))
    for i = 1, to - at + 1 do
      local record = live(found[i])
      reply[#reply + 1] = record
      bytes = bytes + #record
    end
    at = to + 1
  end
  return at - first
end
