-- Returns a lease that is held. KEYS: info, leases. ARGV: now, name.
return held_lease(ARGV[2]) or false
