-- Returns the shard's epoch, which `epoch_check.lua` may just have started. KEYS: info. ARGV: now.
return epoch
