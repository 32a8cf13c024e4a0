-- Reads leases. KEYS[2] is `leases`, a hash: the name, and "token end ttl ttl_nanos access holder" (end and ttl
-- in milliseconds; the ttl again in nanoseconds, which only the client reads; the name of the holder's access token in
-- hexadecimal, after a dash).
-- Returns a lease that is held now: the record, then its parts; nil when it is free or has expired.
local function held_lease(name)
  local record = redis.call('HGET', KEYS[2], name)
  if not record then
    return nil
  end
  local token, ends, ttl, nanos, access, holder =
    string.match(record, '^(%d+) (%d+) (%d+) (%d+) (%-%x*) (.*)$')
  if tonumber(ends) <= now_ms then
    return nil
  end
  return record, token, tonumber(ends), tonumber(ttl), nanos, access, holder
end
