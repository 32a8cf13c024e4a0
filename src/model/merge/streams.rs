//! Streams that look like real ones, for the tests of sketches: a few items are very frequent, most are rare.
//!
//! Invariant: each stream is the same in every run.

/// Numbers from 0 on, the smaller the more frequent: the number n about as often as 1 / (n + 1) (Zipf's law).
pub(super) fn zipf(seed: u64, items: u32) -> impl Iterator<Item = u32> {
    uniform(seed).map(move |share| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below the number of items"
        )]
        let rank = f64::from(items).powf(share) as u32;
        rank - 1
    })
}

/// Numbers from 0 up to 1 (splitmix64).
pub(super) fn uniform(mut seed: u64) -> impl Iterator<Item = f64> {
    std::iter::repeat_with(move || {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        #[expect(clippy::cast_precision_loss, reason = "53 bits")]
        let share = ((bits ^ (bits >> 31)) >> 11) as f64;
        share / (1_u64 << 53) as f64
    })
}
