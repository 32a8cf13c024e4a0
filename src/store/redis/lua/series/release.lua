-- Gives the room back that was reserved for a batch. ARGV: .., hold.
local size = end_hold(ARGV[4])
return size
