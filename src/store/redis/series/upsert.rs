//! Applying a batch: it is checked in all its shards, then each shard applies its part.
//!
//! A batch of one chunk is one script, which checks itself; where every shard just had ample room, there is no check.
//! Invariant: a batch that was found to be over
//! the budget, of others' series, or whose fence was refused, changes nothing; one that was applied in part is an error, and
//! may be sent again.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::super::core::client::Traffic;
use super::super::core::fences::{Pass, pass};
use super::super::core::replies::{ReplyReader, malformed};
use super::super::core::shards::in_part;
use super::Inner;
use super::others::{Asked, add_others, read_others, roles_argument};
use super::room::Room;
use super::scripts::{APPLY, CHECK, COUNT};
use super::split::{COUNTED_BYTES, Chunk, Part, add_times, split};
use crate::model::batch::PointBatch;
use crate::model::roles::RoleName;
use crate::store::{
    ErrorKind, Fenced, OthersSeries, SeriesWriter, StoreError, StoreResult, UpsertCounts,
    UpsertOutcome,
};

/// The most series that one script counts: other commands wait for it.
const COUNT_STEP: usize = 2_000;

/// How a shard received its part of a batch, or one chunk of it.
enum PartReply {
    /// The part would fit; nothing was changed.
    Fits,
    Applied(UpsertCounts),
    /// The fence was refused; nothing was changed.
    Refused,
    /// Points are of series that the writer may not change; nothing was changed.
    OthersSeries(OthersSeries<usize>),
    /// The shard has no room for so many new series; nothing was changed.
    OverQuota {
        new: usize,
        room: usize,
    },
    /// The shard has no room for so many bytes; nothing was changed.
    OverBytes {
        more: usize,
        room: usize,
    },
}

/// What became of a whole part: what was applied, and why it ended before its end.
#[derive(Default)]
struct PartOutcome {
    counts: UpsertCounts,
    /// How many points were applied.
    points: usize,
    stopped: Option<Stop>,
}

/// Why a part was not applied to its end.
enum Stop {
    Refused,
    OthersSeries(OthersSeries<usize>),
    OverQuota { new: usize, room: usize },
    OverBytes { more: usize, room: usize },
    Failed(StoreError),
}

impl Inner {
    /// Applies a batch.
    pub(super) async fn upsert(
        &self,
        batch: PointBatch,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        let Fenced::Done(pass) = pass(&self.shards, writer.fence.as_ref()).await? else {
            return Ok(Fenced::Refused);
        };
        let shards = self.shards.count();
        let (batch, mut parts) = super::off_thread(batch.len(), move || {
            let parts = split(&batch, shards);
            (batch, parts)
        })
        .await?;
        // One script is atomic and checks itself. Several are checked first, so that what can be
        // refused is refused before anything has changed; not where every shard just had ample room.
        let one_script = matches!(&parts[..], [part] if part.chunks.len() == 1);
        if !one_script {
            let others = self.others_among(asked(&parts), &writer).await?;
            if !others.is_empty() {
                return Ok(Fenced::Done(UpsertOutcome::OthersSeries(others)));
            }
        }
        let ample = parts.iter().all(|part| self.has_ample_room(part));
        if !one_script
            && !ample
            && let Some(refused) = self.check(&batch, &mut parts, pass.as_ref()).await?
        {
            return Ok(refused);
        }
        self.apply_all(&parts, &writer, pass.as_ref()).await
    }

    fn has_ample_room(&self, part: &Part) -> bool {
        let (series, bytes) = (self.limits.quota(part.shard), self.limits.byte_quota(part.shard));
        let needed = Room { series: part.series, bytes: part.bytes };
        self.rooms.surely(part.shard, needed, Room { series, bytes })
    }

    /// Checks the fence and the quotas of all shards that a batch needs; returns the outcome of a batch
    /// that must not be applied.
    async fn check(
        &self,
        batch: &PointBatch,
        parts: &mut [Part],
        pass: Option<&Arc<Pass>>,
    ) -> StoreResult<Option<Fenced<UpsertOutcome>>> {
        // First for as many new series as the part has series, which costs nothing and mostly fits.
        let mut over = Vec::new();
        let checks = parts.iter().map(|part| self.check_part(part, pass));
        for (part, fits) in parts.iter().zip(join_all(checks).await) {
            match fits? {
                Fenced::Refused => return Ok(Some(Fenced::Refused)),
                Fenced::Done(true) => {}
                Fenced::Done(false) => over.push(part.shard),
            }
        }
        if over.is_empty() {
            return Ok(None);
        }
        // Then, in the shards without so much room, Redis counts which series are new.
        add_times(batch, self.shards.count(), parts, &over);
        let counted = parts.iter().filter(|part| over.contains(&part.shard));
        let (mut short, mut short_bytes) = (None, None);
        for reply in join_all(counted.map(|part| self.count_part(part, pass))).await {
            match reply? {
                PartReply::Refused => return Ok(Some(Fenced::Refused)),
                PartReply::OverQuota { new, room } => add_short(&mut short, new, room),
                PartReply::OverBytes { more, room } => add_short(&mut short_bytes, more, room),
                PartReply::Fits => {}
                PartReply::Applied(_) | PartReply::OthersSeries(_) => return Err(unasked()),
            }
        }
        Ok(refusal(short, short_bytes).map(Fenced::Done))
    }

    /// Returns whether a part fits even if all its series are new.
    async fn check_part(&self, part: &Part, pass: Option<&Arc<Pass>>) -> StoreResult<Fenced<bool>> {
        let arguments = |command: &mut Cmd| {
            self.add_quotas(command, part.shard);
            command.arg(part.series).arg(part.bytes);
        };
        let reply = self.write(part.shard, Traffic::Small, &CHECK, pass, arguments).await?;
        let Fenced::Done(reply) = reply else { return Ok(Fenced::Refused) };
        let mut reply = ReplyReader::new(reply)?;
        let fits = reply.text()? == "fits";
        let (series, bytes) = (reply.number()?, reply.number()?);
        if fits {
            self.rooms.note(part.shard, Room { series, bytes });
        }
        Ok(Fenced::Done(fits))
    }

    /// Lets Redis count, step by step, which series of a part are new.
    async fn count_part(&self, part: &Part, pass: Option<&Arc<Pass>>) -> StoreResult<PartReply> {
        let (mut new, mut more) = (0, 0);
        let mut room = Room { series: 0, bytes: 0 };
        for step in part.times.chunks(COUNT_STEP * COUNTED_BYTES) {
            let arguments = |command: &mut Cmd| {
                self.add_quotas(command, part.shard);
                command.arg(step);
            };
            let reply = self.write(part.shard, Traffic::Bulk, &COUNT, pass, arguments).await?;
            let Fenced::Done(reply) = reply else { return Ok(PartReply::Refused) };
            let mut reply = ReplyReader::new(reply)?;
            new += reply.number::<usize>()?;
            more += reply.number::<usize>()?;
            room = Room { series: reply.number()?, bytes: reply.number()? };
        }
        Ok(match room {
            Room { series, .. } if new > series => PartReply::OverQuota { new, room: series },
            Room { bytes, .. } if more > bytes => PartReply::OverBytes { more, room: bytes },
            _ => PartReply::Fits,
        })
    }

    fn add_quotas(&self, command: &mut Cmd, shard: usize) {
        command.arg(self.limits.quota(shard)).arg(self.limits.byte_quota(shard));
    }

    /// Applies all parts at the same time. A refusal stands only where nothing was applied anywhere.
    async fn apply_all(
        &self,
        parts: &[Part],
        writer: &SeriesWriter,
        pass: Option<&Arc<Pass>>,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        // All are waited for: what is still running when this returns could change the store later.
        let outcomes = join_all(parts.iter().map(|part| self.apply_part(part, writer, pass))).await;
        let applied = outcomes.iter().map(|outcome| outcome.points).sum();
        let mut counts = UpsertCounts::default();
        let (mut refused, mut short, mut short_bytes, mut failed) = (false, None, None, None);
        let mut others = OthersSeries::default();
        for outcome in outcomes {
            add(&mut counts, outcome.counts);
            match outcome.stopped {
                None => {}
                Some(Stop::Refused) => refused = true,
                Some(Stop::OthersSeries(found)) => add_others(&mut others, found),
                Some(Stop::OverQuota { new, room }) => add_short(&mut short, new, room),
                Some(Stop::OverBytes { more, room }) => add_short(&mut short_bytes, more, room),
                Some(Stop::Failed(error)) => failed = Some(error),
            }
        }
        let stopped = |why: &str| {
            let detail = format!("{why} while a batch was applied");
            Err(in_part(applied, StoreError::new(ErrorKind::Unavailable, detail)))
        };
        let of_others = (!others.is_empty()).then_some(UpsertOutcome::OthersSeries(others));
        match (failed, refused, of_others.or(refusal(short, short_bytes))) {
            (Some(error), ..) => Err(in_part(applied, error)),
            (None, true, _) if applied > 0 => stopped("the lease changed hands"),
            (None, true, _) => Ok(Fenced::Refused),
            (None, false, Some(_)) if applied > 0 => {
                stopped("other writers used up the budget, or took over series,")
            }
            (None, false, Some(refusal)) => Ok(Fenced::Done(refusal)),
            (None, false, None) => Ok(Fenced::Done(UpsertOutcome::Applied(counts))),
        }
    }

    /// Applies the chunks of a part, one after the other, up to the first that is not applied.
    async fn apply_part(
        &self,
        part: &Part,
        writer: &SeriesWriter,
        pass: Option<&Arc<Pass>>,
    ) -> PartOutcome {
        let mut outcome = PartOutcome::default();
        for chunk in &part.chunks {
            match self.apply(part.shard, chunk, writer, pass).await {
                Ok(PartReply::Applied(counts)) => {
                    outcome.points += chunk.points;
                    add(&mut outcome.counts, counts);
                    continue;
                }
                Ok(PartReply::Refused) => outcome.stopped = Some(Stop::Refused),
                Ok(PartReply::OthersSeries(others)) => {
                    outcome.stopped = Some(Stop::OthersSeries(others));
                }
                Ok(PartReply::OverQuota { new, room }) => {
                    outcome.stopped = Some(Stop::OverQuota { new, room });
                }
                Ok(PartReply::OverBytes { more, room }) => {
                    outcome.stopped = Some(Stop::OverBytes { more, room });
                }
                Ok(PartReply::Fits) => {
                    outcome.stopped = Some(Stop::Failed(malformed(&"fits")));
                }
                Err(error) => outcome.stopped = Some(Stop::Failed(error)),
            }
            break;
        }
        outcome
    }

    async fn apply(
        &self,
        shard: usize,
        chunk: &Chunk,
        writer: &SeriesWriter,
        pass: Option<&Arc<Pass>>,
    ) -> StoreResult<PartReply> {
        let role = writer.role.as_ref().map_or("", RoleName::as_str);
        let roles = roles_argument(writer);
        let arguments = |command: &mut Cmd| {
            command.arg(self.limits.quota(shard)).arg(u8::from(chunk.repeats));
            command.arg(&chunk.metadata).arg(&chunk.ids).arg(&chunk.bytes);
            command.arg(self.limits.max_future_skew_ms).arg(self.limits.byte_quota(shard));
            command.arg(role).arg(&roles);
        };
        let reply = self.write(shard, Traffic::Bulk, &APPLY, pass, arguments).await?;
        self.part_reply(shard, reply, &chunk.positions)
    }

    /// Reads a reply; `positions` are those of the points that were sent.
    fn part_reply(
        &self,
        shard: usize,
        reply: Fenced<Value>,
        positions: &[usize],
    ) -> StoreResult<PartReply> {
        let Fenced::Done(reply) = reply else { return Ok(PartReply::Refused) };
        let mut reply = ReplyReader::new(reply)?;
        Ok(match reply.text()?.as_str() {
            "others" => {
                let position_of = |index: usize| positions.get(index).copied();
                PartReply::OthersSeries(read_others(reply, position_of)?)
            }
            "over_quota" => PartReply::OverQuota { new: reply.number()?, room: reply.number()? },
            "over_bytes" => PartReply::OverBytes { more: reply.number()?, room: reply.number()? },
            "applied" => {
                let counts = UpsertCounts {
                    created: reply.number()?,
                    updated: reply.number()?,
                    stale: reply.number()?,
                };
                self.signal.changed(shard, reply.number()?);
                let (series, bytes) = (reply.number()?, reply.number()?);
                self.rooms.note(shard, Room { series, bytes });
                PartReply::Applied(counts)
            }
            other => return Err(malformed(&other)),
        })
    }
}

/// The error of a reply that a check can't have.
fn unasked() -> StoreError {
    malformed(&"a check that applied something")
}

/// Returns what is asked about the series of a batch, chunk by chunk.
fn asked(parts: &[Part]) -> Vec<Asked<'_>> {
    let chunks = parts.iter().flat_map(|part| part.chunks.iter().map(|chunk| (part.shard, chunk)));
    chunks
        .map(|(shard, chunk)| Asked { shard, ids: &chunk.ids, positions: &chunk.positions })
        .collect()
}

/// Adds up what is needed and the room of the shards that have too little.
fn add_short(short: &mut Option<(usize, usize)>, needed: usize, room: usize) {
    let (all_needed, all_room) = short.get_or_insert((0, 0));
    *all_needed += needed;
    *all_room += room;
}

/// Returns why a batch is refused, when shards have no room for its series or their bytes.
fn refusal(series: Option<(usize, usize)>, bytes: Option<(usize, usize)>) -> Option<UpsertOutcome> {
    let series = series.map(|(new, room)| UpsertOutcome::OverBudget { new, room });
    series.or_else(|| bytes.map(|(more, room)| UpsertOutcome::OverBytes { more, room }))
}

fn add(sum: &mut UpsertCounts, counts: UpsertCounts) {
    sum.created += counts.created;
    sum.updated += counts.updated;
    sum.stale += counts.stale;
}
