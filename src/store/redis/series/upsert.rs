//! Applying a batch: room is reserved in all its shards, then every shard applies its part.
//!
//! A batch of one piece is one script. Invariant: a batch that there is no room for changes nothing;
//! one that is cut in the middle is an error, leaves no room reserved for long, and may be sent again.

use std::time::Duration;

use futures_util::future::join_all;
use redis::Cmd;

use super::super::leases::{self, Passed};
use super::super::link::Weight;
use super::Inner;
use super::parts::{Part, Piece, age, cut};
use super::scripts::{Words, strange};
use crate::model::batch::PointBatch;
use crate::model::leases::Fence;
use crate::store::{ErrorKind, Fenced, StoreError, StoreResult, UpsertCounts, UpsertOutcome};

/// How long room stays reserved for a batch whose writer went away, in milliseconds.
const HOLD_MS: u64 = 60_000;

/// So often a batch tries for room that others reserved, but may not need.
const ATTEMPTS: u32 = 6;

/// How an attempt to apply a batch ended.
enum Tried {
    Applied(UpsertCounts),
    Refused,
    /// Nothing was changed: there was no room for so many new series.
    Short {
        new: usize,
    },
}

/// What a shard said to its part.
enum Said {
    /// Of the ones reserved, how many series can be new.
    Held {
        new: usize,
    },
    Applied(UpsertCounts),
    Refused,
    Short {
        new: usize,
        missing: usize,
    },
}

impl Inner {
    /// Applies a batch.
    pub(super) async fn upsert(
        &self,
        batch: PointBatch,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        let Fenced::Done(passed) = leases::pass(&self.shards, fence.as_ref()).await? else {
            return Ok(Fenced::Refused);
        };
        let shards = self.shards.count();
        let (batch, mut parts) = super::off_thread(batch.len(), move || {
            let parts = cut(&batch, shards);
            (batch, parts)
        })
        .await?;
        for attempt in 1..=ATTEMPTS {
            let new = match self.try_upsert(&batch, &mut parts, passed.as_ref()).await? {
                Tried::Applied(counts) => {
                    return Ok(Fenced::Done(UpsertOutcome::Applied(counts)));
                }
                Tried::Refused => return Ok(Fenced::Refused),
                Tried::Short { new } => new,
            };
            let states = self.states(Weight::Light).await?;
            let held: usize = states.iter().map(|state| state.held).sum();
            let live: usize = states.iter().map(|state| state.live).sum();
            let room = self.limits.max_series.saturating_sub(live + held);
            if room < new && (held == 0 || attempt == ATTEMPTS) {
                return Ok(Fenced::Done(UpsertOutcome::OverBudget { new, room }));
            }
            // What is reserved now may be free again soon. Whoever waits as well waits differently long.
            let jitter = u64::from(self.random()?[0]) % 16;
            tokio::time::sleep(Duration::from_millis(jitter << attempt.min(3))).await;
        }
        Err(StoreError::new(ErrorKind::Throttled, "too many ask for room at the same time"))
    }

    async fn try_upsert(
        &self,
        batch: &PointBatch,
        parts: &mut [Part],
        passed: Option<&Passed>,
    ) -> StoreResult<Tried> {
        match parts {
            [] => Ok(Tried::Applied(UpsertCounts::default())),
            [part] if part.pieces.len() == 1 => self.try_one(part, passed).await,
            parts => {
                let hold = self.random()?.map(|byte| format!("{byte:02x}")).concat();
                let tried = self.try_many(batch, parts, &hold, passed).await;
                if !matches!(tried, Ok(Tried::Applied(_))) {
                    // Where this fails, the reservation runs out.
                    let release = |command: &mut Cmd| {
                        command.arg(&hold);
                    };
                    let script = &self.scripts.release;
                    let release = &release;
                    join_all(
                        parts
                            .iter()
                            .map(|part| self.run(part.shard, Weight::Light, script, release)),
                    )
                    .await;
                }
                tried
            }
        }
    }

    /// A batch that is one script.
    async fn try_one(&self, part: &Part, passed: Option<&Passed>) -> StoreResult<Tried> {
        Ok(match self.apply_surely(part.shard, &part.pieces[0], "", true, passed).await? {
            Said::Applied(counts) => Tried::Applied(counts),
            Said::Refused => Tried::Refused,
            Said::Short { new, .. } => Tried::Short { new },
            Said::Held { new } => return Err(strange(&new)),
        })
    }

    async fn try_many(
        &self,
        batch: &PointBatch,
        parts: &mut [Part],
        hold: &str,
        passed: Option<&Passed>,
    ) -> StoreResult<Tried> {
        // First for as many as there are series: that costs nothing, and mostly there is room.
        let mut enough = true;
        for said in self.reserve_all(parts, hold, passed).await? {
            match said {
                Said::Refused => return Ok(Tried::Refused),
                Said::Short { .. } => enough = false,
                _ => {}
            }
        }
        if !enough {
            age(batch, self.shards.count(), parts);
            let mut total = 0;
            let mut short = false;
            for (part, said) in parts.iter().zip(self.reserve_all(parts, hold, passed).await?) {
                match said {
                    Said::Refused => return Ok(Tried::Refused),
                    Said::Held { new } => total += new,
                    Said::Short { new, .. } => {
                        total += new;
                        short |= !self.insist(part, said, hold, passed).await?;
                    }
                    Said::Applied(counts) => return Err(strange(&counts)),
                }
            }
            if short {
                return Ok(Tried::Short { new: total });
            }
        }
        self.apply_all(parts, hold, passed).await
    }

    async fn reserve_all(
        &self,
        parts: &[Part],
        hold: &str,
        passed: Option<&Passed>,
    ) -> StoreResult<Vec<Said>> {
        let reserves = parts.iter().map(|part| self.reserve(part, hold, passed));
        // All are waited for, so that none reserves after all was released.
        join_all(reserves).await.into_iter().collect()
    }

    /// Finds room for a part, and reserves it; tells whether that worked.
    async fn insist(
        &self,
        part: &Part,
        mut said: Said,
        hold: &str,
        passed: Option<&Passed>,
    ) -> StoreResult<bool> {
        let mut found = true;
        while let Said::Short { missing, .. } = said {
            if !found {
                return Ok(false);
            }
            found = self.find_room(part.shard, missing).await?;
            said = self.reserve(part, hold, passed).await?;
        }
        Ok(matches!(said, Said::Held { .. }))
    }

    async fn apply_all(
        &self,
        parts: &[Part],
        hold: &str,
        passed: Option<&Passed>,
    ) -> StoreResult<Tried> {
        let applies = parts.iter().map(|part| async move {
            let mut sum = UpsertCounts::default();
            for (index, piece) in part.pieces.iter().enumerate() {
                let last = index + 1 == part.pieces.len();
                match self.apply_surely(part.shard, piece, hold, last, passed).await? {
                    Said::Applied(counts) => add(&mut sum, counts),
                    other => return Ok(Err(other)),
                }
            }
            Ok::<_, StoreError>(Ok(sum))
        });
        let mut sum = UpsertCounts::default();
        let applied = join_all(applies).await;
        let none = !applied.iter().any(|applied| matches!(applied, Ok(Ok(_))));
        for applied in applied {
            match applied? {
                Ok(counts) => add(&mut sum, counts),
                Err(Said::Refused) if none => return Ok(Tried::Refused),
                Err(Said::Refused) => {
                    let why =
                        "the lease was lost while a batch was applied, and a part of it stands";
                    return Err(StoreError::new(ErrorKind::Unavailable, why));
                }
                Err(_) => {
                    let why = "the room for a batch was lost while it was applied";
                    return Err(StoreError::new(ErrorKind::Unavailable, why));
                }
            }
        }
        Ok(Tried::Applied(sum))
    }

    /// Applies a piece that room is reserved for. Where that ran out, because the clock leapt or the
    /// shard lost it, room is looked for once more.
    async fn apply_surely(
        &self,
        shard: usize,
        piece: &Piece,
        hold: &str,
        last: bool,
        passed: Option<&Passed>,
    ) -> StoreResult<Said> {
        let mut found = true;
        loop {
            match self.apply(shard, piece, hold, last, passed).await? {
                Said::Short { missing, .. } if found => {
                    found = self.find_room(shard, missing).await?;
                }
                said => return Ok(said),
            }
        }
    }

    async fn reserve(&self, part: &Part, hold: &str, passed: Option<&Passed>) -> StoreResult<Said> {
        let arguments = |command: &mut Cmd| {
            leases::add_pass(command, passed);
            command.arg(hold).arg(HOLD_MS).arg(part.series).arg(&part.ages);
        };
        let weight = if part.ages.is_empty() { Weight::Light } else { Weight::Heavy };
        let answer = self.run(part.shard, weight, &self.scripts.reserve, arguments).await?;
        self.said(part.shard, Words::of(answer.value)?)
    }

    async fn apply(
        &self,
        shard: usize,
        piece: &Piece,
        hold: &str,
        last: bool,
        passed: Option<&Passed>,
    ) -> StoreResult<Said> {
        let arguments = |command: &mut Cmd| {
            leases::add_pass(command, passed);
            command.arg(hold).arg(u8::from(last)).arg(u8::from(piece.repeats));
            command.arg(&piece.metadata).arg(&piece.ids).arg(&piece.bytes);
        };
        let answer = self.run(shard, Weight::Heavy, &self.scripts.apply, arguments).await?;
        self.said(shard, Words::of(answer.value)?)
    }

    fn said(&self, shard: usize, mut words: Words) -> StoreResult<Said> {
        Ok(match words.text()?.as_str() {
            "refused" => Said::Refused,
            "held" => Said::Held { new: words.number()? },
            "short" => {
                let new: usize = words.number()?;
                let room: i64 = words.number()?;
                let missing = i64::try_from(new).unwrap_or(i64::MAX).saturating_sub(room);
                Said::Short { new, missing: usize::try_from(missing).unwrap_or(0) }
            }
            "applied" => {
                let counts = UpsertCounts {
                    created: words.number()?,
                    updated: words.number()?,
                    stale: words.number()?,
                };
                self.signal.changed(shard, words.number()?);
                Said::Applied(counts)
            }
            other => return Err(strange(&other)),
        })
    }
}

fn add(sum: &mut UpsertCounts, counts: UpsertCounts) {
    sum.created += counts.created;
    sum.updated += counts.updated;
    sum.stale += counts.stale;
}
