//! Random choices that can be repeated: SplitMix64 (Steele, Lea, Flood, 2014).

/// A source of random numbers.
pub(crate) struct Rng(u64);

impl Rng {
    /// Takes the seed from `TEST_SEED`, or from the clock; prints it, so that a run can be repeated.
    pub(crate) fn from_environment() -> Self {
        let given = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(1, |since| since.as_secs() ^ u64::from(since.subsec_nanos()))
        });
        eprintln!("TEST_SEED={seed}");
        Self(seed)
    }

    /// Starts the sequence of one seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Makes an independent source.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
