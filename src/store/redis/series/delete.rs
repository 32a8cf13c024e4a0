//! Deletions: each series in its shard, chunk by chunk.
//!
//! Not one step over several chunks. Invariant: a refusal by the fence stands only where nothing was deleted.

use std::sync::Arc;

use redis::Cmd;

use super::super::core::client::Traffic;
use super::super::core::fences::Pass;
use super::super::core::replies::ReplyReader;
use super::super::core::shards::in_part;
use super::Inner;
use super::scripts::DELETE;
use super::split::shard_of;
use crate::model::series::SeriesId;
use crate::store::{ErrorKind, Fenced, StoreError, StoreResult};

/// The most series that one script deletes.
const DELETE_CHUNK: usize = 500;

impl Inner {
    /// Deletes series, each in its shard; returns how many existed. A refusal stands only where nothing was deleted.
    pub(super) async fn delete_all(
        &self,
        ids: &[SeriesId],
        pass: Option<&Arc<Pass>>,
    ) -> StoreResult<Fenced<usize>> {
        let mut by_shard: Vec<Vec<u8>> = vec![Vec::new(); self.shards.count()];
        for id in ids {
            by_shard[shard_of(*id, self.shards.count())].extend(id.to_bytes());
        }
        let deletes = by_shard.iter().enumerate().filter(|(_, ids)| !ids.is_empty());
        let deletes = deletes.map(|(shard, ids)| self.delete_part(shard, ids, pass));
        let (mut sum, mut refused, mut failed) = (0, false, None);
        // All are waited for: what is still running when this returns could change the store later.
        for (deleted, stopped) in futures_util::future::join_all(deletes).await {
            sum += deleted;
            match stopped {
                Ok(Fenced::Done(())) => {}
                Ok(Fenced::Refused) => refused = true,
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(in_part(sum, error)),
            None if refused && sum > 0 => {
                let why = "the lease changed hands while series were deleted";
                Err(in_part(sum, StoreError::new(ErrorKind::Unavailable, why)))
            }
            None if refused => Ok(Fenced::Refused),
            None => Ok(Fenced::Done(sum)),
        }
    }

    /// Deletes the series of one shard, chunk by chunk; returns how many it deleted, and how it ended.
    async fn delete_part(
        &self,
        shard: usize,
        ids: &[u8],
        pass: Option<&Arc<Pass>>,
    ) -> (usize, StoreResult<Fenced<()>>) {
        let mut sum = 0;
        for chunk in ids.chunks(16 * DELETE_CHUNK) {
            match self.delete_chunk(shard, chunk, pass).await {
                Ok(Fenced::Done(deleted)) => sum += deleted,
                Ok(Fenced::Refused) => return (sum, Ok(Fenced::Refused)),
                Err(error) => return (sum, Err(error)),
            }
        }
        (sum, Ok(Fenced::Done(())))
    }

    async fn delete_chunk(
        &self,
        shard: usize,
        ids: &[u8],
        pass: Option<&Arc<Pass>>,
    ) -> StoreResult<Fenced<usize>> {
        let traffic = if ids.len() <= 16 { Traffic::Small } else { Traffic::Bulk };
        let arguments = |command: &mut Cmd| {
            command.arg(ids);
        };
        let Fenced::Done(reply) = self.write(shard, traffic, &DELETE, pass, arguments).await?
        else {
            return Ok(Fenced::Refused);
        };
        let mut reply = ReplyReader::new(reply)?;
        let deleted = reply.number()?;
        self.signal.changed(shard, reply.number()?);
        Ok(Fenced::Done(deleted))
    }
}
