//! The budget of bytes: how much memory request bodies, what was read from them, and responses take together.
//!
//! Not how they are read or sent. Each client has at most its part of it, or what a single request of it takes: a large
//! push is possible, but not beside others. Invariant: memory counts from before it is allocated until it is freed, apart
//! from the first few KiB of each request: the number of these is bounded by the permits to run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::Extensions;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::clients::{Client, CountsFor};
use crate::http::problem::Problem;

/// How many bytes of each share are not counted.
const FREE_BYTES: usize = 16 << 10;

/// The budget counts in units of this many bytes.
const UNIT_BYTES: usize = 4096;

/// How many bytes may be in memory at a time, over all requests.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget {
    units: Arc<Semaphore>,
    all_bytes: usize,
    /// The most units that one client takes with several requests.
    part_of_client: usize,
    /// The request that takes from the budget; `None` where nobody knows its client.
    request: Option<Arc<RequestMemory>>,
}

/// What one request has taken.
#[derive(Debug)]
struct RequestMemory {
    client: Arc<Client>,
    units: AtomicUsize,
}

impl BodyBudget {
    /// Makes a budget of about `bytes`, of which each client has at most `part_of_client` bytes.
    pub(crate) fn new(bytes: usize, part_of_client: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units)),
            all_bytes: units * UNIT_BYTES,
            part_of_client: part_of_client.div_ceil(UNIT_BYTES),
            request: None,
        }
    }

    /// Returns the budget as the request with these extensions takes from it.
    pub(crate) fn of(&self, extensions: &Extensions) -> Self {
        let request = extensions.get().map(|CountsFor(client)| {
            let client = Arc::clone(client);
            Arc::new(RequestMemory { client, units: AtomicUsize::new(0) })
        });
        Self { request, ..self.clone() }
    }

    /// Takes the share of a response, or of a part of one, that will take about `bytes`; see [`Share::hold`]. A
    /// response that is larger than the whole budget takes all of it.
    ///
    /// # Errors
    /// 503 when the budget is spent.
    pub(crate) fn cover_response(&self, bytes: usize) -> Result<Share, Problem> {
        let mut share = Share::new(self);
        share.cover_reading(0, bytes)?;
        Ok(share)
    }
}

/// What one body or response has taken of the budget. Dropping it gives it back.
pub(crate) struct Share {
    budget: BodyBudget,
    taken: Vec<Taken>,
    covered_bytes: usize,
}

/// Units of the budget, which also count for a client. Dropping them gives them back.
struct Taken {
    permit: OwnedSemaphorePermit,
    request: Option<Arc<RequestMemory>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            let units = self.permit.num_permits();
            request.client.return_memory(units);
            request.units.fetch_sub(units, Ordering::Relaxed);
        }
    }
}

impl BodyBudget {
    /// Takes units, for the client first: one that has all its part can't even for a moment take what others need.
    ///
    /// # Errors
    /// 503 when its part or the budget is spent.
    fn take(&self, units: u32) -> Result<Taken, Problem> {
        const SPENT: &str = "too many bytes of requests and responses are in memory";
        let request = self.request.clone();
        if let Some(RequestMemory { client, units: own }) = request.as_deref() {
            let (more, own_now) = (units as usize, own.load(Ordering::Relaxed));
            if !client.take_memory(more, self.part_of_client, own_now) {
                return Err(Problem::overloaded(&format!("{SPENT} for one client")));
            }
            own.fetch_add(more, Ordering::Relaxed);
        }
        match Arc::clone(&self.units).try_acquire_many_owned(units) {
            Ok(permit) => Ok(Taken { permit, request }),
            Err(_) => {
                if let Some(RequestMemory { client, units: own }) = request.as_deref() {
                    client.return_memory(units as usize);
                    own.fetch_sub(units as usize, Ordering::Relaxed);
                }
                Err(Problem::overloaded(SPENT))
            }
        }
    }
}

impl Share {
    /// Makes a share that covers only what is not counted.
    pub(super) fn new(budget: &BodyBudget) -> Self {
        Self { budget: budget.clone(), taken: Vec::new(), covered_bytes: FREE_BYTES }
    }

    /// Extends the share to cover `bytes`. What it covers already is not taken again.
    ///
    /// # Errors
    /// 503 when the budget is spent.
    pub(super) fn cover(&mut self, bytes: usize) -> Result<(), Problem> {
        let Some(missing) = bytes.checked_sub(self.covered_bytes).filter(|m| *m > 0) else {
            return Ok(());
        };
        let units = u32::try_from(missing.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let more = self.budget.take(units)?;
        self.covered_bytes += units as usize * UNIT_BYTES;
        self.taken.push(more);
        Ok(())
    }

    /// Covers `bytes`, and `more_bytes` as far as the whole budget is large enough: a body that alone exceeds the
    /// budget takes all of it. It would get 503 for ever otherwise.
    ///
    /// # Errors
    /// 503 when the budget is spent.
    pub(crate) fn cover_reading(&mut self, bytes: usize, more_bytes: usize) -> Result<(), Problem> {
        let coverable = self.budget.all_bytes.saturating_add(FREE_BYTES).max(bytes);
        self.cover(bytes.saturating_add(more_bytes).min(coverable))
    }

    /// Returns `bytes` as a response, or a part of one, that keeps the share until it was sent or its client is gone.
    ///
    /// # Errors
    /// 503 when `bytes` takes more than the share covers, and the budget is spent.
    pub(crate) fn hold(mut self, bytes: Vec<u8>) -> Result<Bytes, Problem> {
        self.cover_reading(0, bytes.capacity())?;
        Ok(Bytes::from_owner(Held { bytes, _share: self }))
    }

    /// Makes room in `buffer` for `more_bytes`. The share then covers all of the buffer, and `other_bytes` beside it.
    /// The buffer is not made larger than `most_bytes`, unless it must be.
    ///
    /// # Errors
    /// 503 when the budget is spent.
    pub(super) fn make_room(
        &mut self,
        buffer: &mut Vec<u8>,
        more_bytes: usize,
        most_bytes: usize,
        other_bytes: usize,
    ) -> Result<(), Problem> {
        let needed = buffer.len() + more_bytes;
        if needed > buffer.capacity() {
            // Twice as large each time, so that each byte is copied about once.
            let capacity = needed.max(buffer.capacity().saturating_mul(2).min(most_bytes));
            self.cover(other_bytes.saturating_add(capacity))?;
            buffer.reserve_exact(capacity - buffer.len());
        }
        Ok(())
    }
}

/// Bytes and their share, which are dropped together.
struct Held {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of a budget is left, in bytes.
    fn left(budget: &BodyBudget) -> usize {
        budget.units.available_permits() * UNIT_BYTES
    }

    #[test]
    fn a_part_of_a_response_counts_by_its_memory_until_its_last_byte_is_dropped() {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let mut part = Vec::with_capacity(512 << 10);
        part.extend_from_slice(b"short");
        let part = budget.cover_response(part.len()).and_then(|share| share.hold(part));
        let mut part = part.expect("there is room");
        assert_eq!(left(&budget), (512 << 10) + FREE_BYTES);
        let second = budget.cover_response(600 << 10);
        assert_eq!(second.err().map(|problem| problem.status().as_u16()), Some(503));
        let end = part.split_off(3);
        drop(part);
        assert!(left(&budget) < 1 << 20, "its end still keeps the memory");
        drop(end);
        assert_eq!(left(&budget), 1 << 20);
    }

    #[test]
    fn a_response_that_is_larger_than_the_budget_is_sent_alone() {
        let budget = BodyBudget::new(64 << 10, 64 << 10);
        let large = budget.cover_response(0).and_then(|share| share.hold(vec![0; 1 << 20]));
        assert_eq!(large.as_ref().ok().map(Bytes::len), Some(1 << 20));
        assert!(budget.cover_response(17 << 10).is_err());
        drop(large);
        assert!(budget.cover_response(17 << 10).is_ok());
    }

    #[test]
    fn a_buffer_that_grows_counts_by_its_capacity_and_stops_at_its_limit() {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let (mut share, mut buffer) = (Share::new(&budget), Vec::new());
        let most = 300 << 10;
        while buffer.len() < most {
            share.make_room(&mut buffer, 10 << 10, most, 0).expect("there is room");
            buffer.resize(buffer.len() + (10 << 10), 0);
            assert!(share.covered_bytes >= buffer.capacity(), "{}", buffer.len());
            assert!(buffer.capacity() <= most);
        }
        let taken = (1 << 20) - left(&budget);
        assert!((most - FREE_BYTES..most).contains(&taken), "{taken}");
    }

    /// The budget as a request of this client takes from it.
    fn of(budget: &BodyBudget, client: &Arc<Client>) -> BodyBudget {
        let mut extensions = Extensions::new();
        extensions.insert(CountsFor(Arc::clone(client)));
        budget.of(&extensions)
    }

    #[test]
    fn a_client_takes_its_part_with_many_requests_and_more_with_one_alone() {
        let budget = BodyBudget::new(1 << 20, 256 << 10);
        let (one, other) = (Arc::new(Client::default()), Arc::new(Client::default()));
        let take = |client, bytes| of(&budget, client).cover_response(bytes + FREE_BYTES);
        let held: Vec<_> = (0..4).map(|_| take(&one, 64 << 10)).collect();
        assert!(held.iter().all(Result::is_ok));
        let refused = take(&one, 4 << 10).err().expect("its part is spent");
        assert_eq!(refused.status().as_u16(), 503);
        assert!(take(&other, 256 << 10).is_ok(), "the others have theirs");
        drop(held);
        assert_eq!(left(&budget), 1 << 20);
        // A large body grows step by step, with a decoder beside it, as long as the client has nothing else.
        let request = of(&budget, &one);
        let mut body = Share::new(&request);
        body.cover(300 << 10).expect("it is alone");
        let decoder = request.cover_response(100 << 10).expect("it belongs to the same request");
        body.cover(500 << 10).expect("it is alone");
        assert!(take(&one, 4 << 10).is_err());
        assert!(take(&other, 64 << 10).is_ok());
        drop((body, decoder));
        let small = take(&one, 64 << 10).expect("all was given back");
        assert!(take(&one, 300 << 10).is_err(), "it is not alone");
        drop(small);
        assert_eq!(left(&budget), 1 << 20);
    }
}
