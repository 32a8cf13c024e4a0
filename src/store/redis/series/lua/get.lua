-- Returns the record of one series. ARGV: .., id.
return redis.call('HGET', KEYS[2], ARGV[4])
