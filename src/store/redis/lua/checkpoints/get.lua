-- Reads a checkpoint. KEYS: info, checkpoints. ARGV: now, retention in milliseconds, key.
return standing(ARGV[3], tonumber(ARGV[2])) or false
