//! Deleting series that were found: chunk by chunk, each in its shard.
//!
//! Not finding them: the local copy does that. Invariant: a refusal stands only where nothing was deleted.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::Cmd;

use super::super::core::client::Traffic;
use super::super::core::fences::Pass;
use super::super::core::replies::{ReplyReader, malformed};
use super::super::core::shards::in_part;
use super::Inner;
use super::others::{Asked, add_others, read_others, roles_argument};
use super::scripts::DELETE;
use super::split::shard_of;
use crate::model::series::SeriesId;
use crate::store::{
    DeleteOutcome, ErrorKind, Fenced, OthersSeries, SeriesWriter, StoreError, StoreResult,
};

/// The most series that one script deletes.
const DELETE_CHUNK: usize = 500;

/// The series to delete of one shard.
#[derive(Debug, Default)]
struct Part {
    /// Their ids, 16 bytes each.
    ids: Vec<u8>,
    /// Their positions in the list of all.
    positions: Vec<usize>,
}

/// How a chunk, or what there was of a part, ended.
enum Ended {
    Deleted,
    Refused,
    OthersSeries(OthersSeries<usize>),
    Failed(StoreError),
}

impl Inner {
    /// Returns those of some series that the writer may not change.
    pub(super) async fn others_of(
        &self,
        ids: &[SeriesId],
        writer: &SeriesWriter,
    ) -> StoreResult<OthersSeries<SeriesId>> {
        let parts = self.parts_of(ids);
        let mut asked = Vec::new();
        for (shard, part) in parts.iter().enumerate() {
            asked.extend(part.chunks(shard));
        }
        Ok(named(self.others_among(asked, writer).await?, ids))
    }

    fn parts_of(&self, ids: &[SeriesId]) -> Vec<Part> {
        let shards = self.shards.count();
        let mut parts: Vec<Part> = (0..shards).map(|_| Part::default()).collect();
        for (position, id) in ids.iter().enumerate() {
            let part = &mut parts[shard_of(*id, shards)];
            part.ids.extend(id.to_bytes());
            part.positions.push(position);
        }
        parts
    }

    /// Deletes series; counts those that existed.
    pub(super) async fn delete_all(
        &self,
        ids: &[SeriesId],
        writer: &SeriesWriter,
        pass: Option<&Arc<Pass>>,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        let roles = &roles_argument(writer);
        let parts = self.parts_of(ids);
        let parts = parts.iter().enumerate().filter(|(_, part)| !part.ids.is_empty());
        let deletes = parts.map(|(shard, part)| self.delete_part(shard, part, roles, pass));
        let (mut sum, mut refused, mut failed) = (0, false, None);
        let mut others = OthersSeries::default();
        // All are waited for: what is still running when this returns could change the store later.
        for (deleted, ended) in join_all(deletes).await {
            sum += deleted;
            match ended {
                Ended::Deleted => {}
                Ended::Refused => refused = true,
                Ended::OthersSeries(found) => add_others(&mut others, found),
                Ended::Failed(error) => failed = Some(error),
            }
        }
        let stopped = |why: &str| {
            let why = format!("{why} while series were deleted");
            Err(in_part(sum, StoreError::new(ErrorKind::Unavailable, why)))
        };
        match failed {
            Some(error) => Err(in_part(sum, error)),
            None if refused && sum > 0 => stopped("the lease changed hands"),
            None if refused => Ok(Fenced::Refused),
            None if !others.is_empty() && sum > 0 => stopped("another role took over series"),
            None if !others.is_empty() => {
                Ok(Fenced::Done(DeleteOutcome::OthersSeries(named(others, ids))))
            }
            None => Ok(Fenced::Done(DeleteOutcome::Deleted(sum))),
        }
    }

    /// Deletes the series of one shard, chunk by chunk; returns how many it deleted, and how it ended.
    async fn delete_part(
        &self,
        shard: usize,
        part: &Part,
        roles: &[u8],
        pass: Option<&Arc<Pass>>,
    ) -> (usize, Ended) {
        let mut sum = 0;
        for chunk in part.chunks(shard) {
            match self.delete_chunk(chunk, roles, pass).await {
                Ok((deleted, Ended::Deleted)) => sum += deleted,
                Ok((_, ended)) => return (sum, ended),
                Err(error) => return (sum, Ended::Failed(error)),
            }
        }
        (sum, Ended::Deleted)
    }

    async fn delete_chunk(
        &self,
        chunk: Asked<'_>,
        roles: &[u8],
        pass: Option<&Arc<Pass>>,
    ) -> StoreResult<(usize, Ended)> {
        let Asked { shard, ids, positions } = chunk;
        let arguments = |command: &mut Cmd| {
            command.arg(ids).arg(roles);
        };
        let traffic = if positions.len() <= 1 { Traffic::Small } else { Traffic::Bulk };
        let reply = self.write(shard, traffic, &DELETE, pass, arguments).await?;
        let Fenced::Done(reply) = reply else { return Ok((0, Ended::Refused)) };
        let mut reply = ReplyReader::new(reply)?;
        match reply.text()?.as_str() {
            "others" => {
                let others = read_others(reply, |index| positions.get(index).copied())?;
                Ok((0, Ended::OthersSeries(others)))
            }
            "deleted" => {
                let deleted = reply.number()?;
                self.signal.changed(shard, reply.number()?);
                Ok((deleted, Ended::Deleted))
            }
            other => Err(malformed(&other)),
        }
    }
}

impl Part {
    fn chunks(&self, shard: usize) -> Vec<Asked<'_>> {
        let chunks = self.ids.chunks(16 * DELETE_CHUNK).zip(self.positions.chunks(DELETE_CHUNK));
        chunks.map(|(ids, positions)| Asked { shard, ids, positions }).collect()
    }
}

/// Names series by their ids instead of by their positions.
fn named(others: OthersSeries<usize>, ids: &[SeriesId]) -> OthersSeries<SeriesId> {
    let OthersSeries { first, total } = others;
    let first = first.into_iter();
    let first = first.filter_map(|(position, role)| Some((*ids.get(position)?, role)));
    OthersSeries { first: first.collect(), total }
}
