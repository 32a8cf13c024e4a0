//! Clients: who counts as one, and how many permits and connections and how much memory each has now.
//!
//! Not the permits themselves: `admission` takes them. A client is the token that a request shows, or the address that
//! it comes from where there is none. Invariant: what a client has is counted until it is dropped, and an address is
//! forgotten with its last connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// What there is a limited number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PermitKind {
    /// To run.
    Running,
    /// To renew or release a lease while no other permit is left.
    Reserved,
    /// To send a large body.
    Uploading,
    /// To wait for changes of series.
    WaitingForChanges,
    /// To wait for a lease that another holder has, or for a value that another caller makes.
    WaitingForLeaseOrValue,
    /// To scrape /metrics.
    Scraping,
    /// To be connected. Only addresses have connections.
    Connected,
}

impl PermitKind {
    const COUNT: usize = 7;

    /// Returns the word that stands for it in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Reserved => "reserved",
            Self::Uploading => "uploading",
            Self::WaitingForChanges => "waiting_for_changes",
            Self::WaitingForLeaseOrValue => "waiting_for_lease_or_value",
            Self::Scraping => "scraping",
            Self::Connected => "connected",
        }
    }
}

/// One client, how many permits of each kind it has, and how much memory.
#[derive(Debug, Default)]
pub(crate) struct Client {
    permits: [AtomicUsize; PermitKind::COUNT],
    /// In units of the budget of bytes.
    memory: AtomicUsize,
}

impl Client {
    /// Takes one of the client's part of the permits of this kind, which are `most`; `None` when it has them all.
    pub(crate) fn take(self: &Arc<Self>, kind: PermitKind, most: usize) -> Option<ClientPart> {
        let taken = &self.permits[kind as usize];
        // The counter protects no other memory: it only has to be exact.
        let more = |now: usize| (now < most).then_some(now + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(ClientPart { client: Arc::clone(self), kind })
    }

    /// Counts so many units of memory more; returns false when the client would have more than `most`, unless all that
    /// it has are the `own` units of the request that takes them.
    pub(crate) fn take_memory(&self, units: usize, most: usize, own: usize) -> bool {
        let more = |now: usize| {
            let sum = now.saturating_add(units);
            (sum <= most || now == own).then_some(sum)
        };
        self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts so many units of memory less.
    pub(crate) fn return_memory(&self, units: usize) {
        self.memory.fetch_sub(units, Ordering::Relaxed);
    }
}

/// One of a client's part of the permits of one kind. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct ClientPart {
    client: Arc<Client>,
    kind: PermitKind,
}

impl Drop for ClientPart {
    fn drop(&mut self) {
        self.client.permits[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// The client that a request counts for, as a request extension set by the admission.
#[derive(Debug, Clone)]
pub(crate) struct CountsFor(pub(crate) Arc<Client>);

/// Where a request comes from, as a request extension set by the listener.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The address of the other end of the connection.
    pub(crate) address: IpAddr,
    /// The client of all connections from there.
    pub(crate) client: Arc<Client>,
    /// Whether the request of the connection waits: it is ended when the client closes its sending side.
    pub(crate) waits: Arc<AtomicBool>,
}

/// The addresses that are connected.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, Arc<Client>>>);

impl Addresses {
    /// Counts a connection from `address`; `None` when there are `most` from there.
    pub(crate) fn connect(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Connected> {
        let network = network(address);
        let mut known = self.0.lock();
        let client = Arc::clone(known.entry(network).or_default());
        let part = client.take(PermitKind::Connected, most)?;
        let addresses = Arc::clone(self);
        Some(Connected {
            addresses,
            network,
            peer: Peer { address, client, waits: Arc::default() },
            part: Some(part),
        })
    }
}

/// A connection that counts, until it is dropped.
pub(crate) struct Connected {
    addresses: Arc<Addresses>,
    network: IpAddr,
    peer: Peer,
    part: Option<ClientPart>,
}

impl Connected {
    /// Returns where the connection comes from.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        // Under the lock, so that no new connection finds a client that is being forgotten.
        let mut known = self.addresses.0.lock();
        self.part = None;
        if self.peer.client.permits[PermitKind::Connected as usize].load(Ordering::Relaxed) == 0 {
            known.remove(&self.network);
        }
    }
}

/// Returns what counts as one address: a host on IPv6 has a whole /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_has_its_part_of_each_kind_and_no_more() {
        let client = Arc::new(Client::default());
        let first = client.take(PermitKind::Running, 2).expect("its first");
        let _second = client.take(PermitKind::Running, 2).expect("its second");
        assert!(client.take(PermitKind::Running, 2).is_none());
        assert!(client.take(PermitKind::Uploading, 2).is_some());
        drop(first);
        assert!(client.take(PermitKind::Running, 2).is_some());
    }

    #[test]
    fn the_connections_of_an_address_are_one_client_that_is_forgotten_with_the_last() {
        let addresses = Arc::new(Addresses::default());
        let one = addresses.connect(ip("192.0.2.1"), 2).expect("its first");
        let two = addresses.connect(ip("::ffff:192.0.2.1"), 2).expect("its second");
        assert!(Arc::ptr_eq(&one.peer().client, &two.peer().client));
        assert!(addresses.connect(ip("192.0.2.1"), 2).is_none());
        let other = addresses.connect(ip("192.0.2.2"), 2).expect("another address");
        assert!(!Arc::ptr_eq(&one.peer().client, &other.peer().client));
        drop(one);
        let one = addresses.connect(ip("192.0.2.1"), 2).expect("there is room again");
        drop((one, two, other));
        assert!(addresses.0.lock().is_empty());
    }

    #[test]
    fn a_host_on_ipv6_is_one_client() {
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff:1")));
        assert_ne!(network(ip("2001:db8::1")), network(ip("2001:db8:0:1::1")));
    }
}
