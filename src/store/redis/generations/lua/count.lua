-- Returns the number of keys with a generation above 0. KEYS: info, generations. ARGV: now.
return redis.call('HLEN', KEYS[2])
