//! Slows down whoever tries keys: a few wrong attempts are free, then they cost time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many wrong attempts a peer has, and how they come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrongKeys {
    /// Attempts that are free. 0 turns the limit off.
    pub free: u32,
    /// After this long one attempt has come back.
    pub regain: Duration,
}

impl Default for WrongKeys {
    fn default() -> Self {
        Self {
            free: 10,
            regain: Duration::from_secs(5),
        }
    }
}

/// Peers remembered at once. Beyond, whoever has waited longest is forgotten.
const PEERS: usize = 4096;

/// Wrong attempts by peer. A peer is an address of IPv4, or a network of IPv6 such as one customer gets.
///
/// It keeps, per peer, the moment at which all attempts will have come back; a peer past that moment needs no entry.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    peers: Mutex<HashMap<IpAddr, Instant>>,
}

impl Attempts {
    /// How long this peer must wait before its next attempt; `None` when it need not.
    pub(crate) fn wait(&self, limit: WrongKeys, peer: IpAddr) -> Option<Duration> {
        let whole = self.peers().get(&key(peer)).copied()?;
        let allowed = limit.regain * limit.free.checked_sub(1)?;
        let left = whole.saturating_duration_since(Instant::now());
        left.checked_sub(allowed).filter(|wait| !wait.is_zero())
    }

    /// This peer has made a wrong attempt.
    pub(crate) fn wrong(&self, limit: WrongKeys, peer: IpAddr) {
        if limit.free == 0 {
            return;
        }
        let now = Instant::now();
        let mut peers = self.peers();
        if peers.len() >= PEERS && !peers.contains_key(&key(peer)) {
            peers.retain(|_, whole| *whole > now);
            if peers.len() >= PEERS
                && let Some(first) = peers
                    .iter()
                    .min_by_key(|(_, whole)| **whole)
                    .map(|(peer, _)| *peer)
            {
                peers.remove(&first);
            }
        }
        let whole = peers.entry(key(peer)).or_insert(now);
        *whole = (*whole).max(now) + limit.regain;
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has an address of IPv6 has 2^64 of them.
fn key(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: WrongKeys = WrongKeys {
        free: 3,
        regain: Duration::from_secs(5),
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn some_attempts_are_free_and_come_back_one_by_one() {
        let (attempts, peer) = (Attempts::default(), address("192.0.2.1"));
        for _ in 0..3 {
            assert_eq!(attempts.wait(LIMIT, peer), None);
            attempts.wrong(LIMIT, peer);
        }
        assert_eq!(attempts.wait(LIMIT, peer), Some(Duration::from_secs(5)));
        assert_eq!(
            attempts.wait(LIMIT, address("192.0.2.2")),
            None,
            "others are free"
        );
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(attempts.wait(LIMIT, peer), None);
        attempts.wrong(LIMIT, peer);
        assert_eq!(attempts.wait(LIMIT, peer), Some(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(15)).await;
        attempts.wrong(LIMIT, peer);
        attempts.wrong(LIMIT, peer);
        assert_eq!(attempts.wait(LIMIT, peer), None, "all three had come back");
    }

    #[tokio::test(start_paused = true)]
    async fn neighbours_in_a_network_of_ipv6_are_one_peer() {
        let attempts = Attempts::default();
        for host in 1..=3 {
            attempts.wrong(LIMIT, address(&format!("2001:db8::{host}")));
        }
        assert!(attempts.wait(LIMIT, address("2001:db8::ffff")).is_some());
        assert_eq!(attempts.wait(LIMIT, address("2001:db8:0:1::1")), None);
        attempts.wrong(LIMIT, address("192.0.2.9"));
        attempts.wrong(LIMIT, address("::ffff:192.0.2.9"));
        attempts.wrong(LIMIT, address("192.0.2.9"));
        assert!(attempts.wait(LIMIT, address("::ffff:192.0.2.9")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn many_peers_cost_bounded_memory_and_do_not_free_the_worst() {
        let (attempts, worst) = (Attempts::default(), address("192.0.2.1"));
        for _ in 0..4 {
            attempts.wrong(LIMIT, worst);
        }
        for peer in 0..3 * u32::try_from(PEERS).unwrap() {
            attempts.wrong(LIMIT, IpAddr::V4((0x0a00_0000 + peer).into()));
        }
        assert_eq!(attempts.peers().len(), PEERS);
        assert!(attempts.wait(LIMIT, worst).is_some());
    }
}
