//! What only the Redis store can get wrong: shards that know different things, replicas that pass
//! each other, and a Redis that loses what it knew.

mod exclusion;
mod fencing;
mod lost_data;
mod replica;
