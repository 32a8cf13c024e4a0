-- Gives the shard's epoch, a new one if the guard found reason. KEYS: info. ARGV: now.
return epoch
