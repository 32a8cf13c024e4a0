-- Returns a checkpoint. KEYS: info, checkpoints. ARGV: now, retention in milliseconds, key.
return live_checkpoint(ARGV[3], tonumber(ARGV[2])) or false
