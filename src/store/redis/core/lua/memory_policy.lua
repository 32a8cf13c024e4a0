-- Returns what the server does when its memory is full. KEYS: info. ARGV: now.
return string.match(redis.call('INFO', 'memory'), 'maxmemory_policy:([%a%-]+)') or ''
