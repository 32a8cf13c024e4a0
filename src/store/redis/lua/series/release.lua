-- Gives the room back that was reserved for a batch. ARGV: .., hold.
return end_hold(ARGV[4])
