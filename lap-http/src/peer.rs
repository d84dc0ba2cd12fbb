//! Who is at the other end: the peer of the connection, or who a trusted proxy says it is.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::extract::ConnectInfo;
use http::request::Parts;

/// An IP address, or a network of them: `10.0.0.0/8`, `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Of the same kind as every address in it.
    address: IpAddr,
    prefix: u8,
}

/// A text that is neither an address nor a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotANetwork;

impl std::fmt::Display for NotANetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("neither an IP address nor a network such as 10.0.0.0/8")
    }
}

impl std::error::Error for NotANetwork {}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let width = bits(address).1;
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| NotANetwork)?,
            None => width,
        };
        if prefix > width {
            return Err(NotANetwork);
        }
        Ok(Self { address, prefix })
    }
}

impl Network {
    /// Whether the address belongs to it. An IPv4 address that is written as IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((ours, width), (theirs, other)) = (bits(self.address), bits(address.to_canonical()));
        let apart = u32::from(width - self.prefix);
        width == other && ours.checked_shr(apart).unwrap_or(0) == theirs.checked_shr(apart).unwrap_or(0)
    }
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

/// The client of a request. Without the extension [`ConnectInfo`] nobody knows.
///
/// Proxies append whom they have seen to `X-Forwarded-For`, so it is read from its end for as long as the writer is
/// trusted. What a client wrote there itself is never reached.
pub(crate) fn client(parts: &Parts, trusted: &[Network]) -> Option<IpAddr> {
    let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.ip();
    let seen = parts.headers.get_all("x-forwarded-for").into_iter();
    let seen: Vec<&str> = seen.filter_map(|value| value.to_str().ok()).collect();
    let mut seen = seen.iter().flat_map(|value| value.split(',')).rev();
    while is_trusted(client) {
        let Some(before) = seen.next().and_then(|text| forwarded(text.trim())) else {
            break;
        };
        client = before;
    }
    Some(client)
}

/// Some proxies add the port.
fn forwarded(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    bare.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(peer: &str, forwarded: &[&str]) -> Parts {
        let mut request = http::Request::new(()).into_parts().0;
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions.insert(ConnectInfo(peer));
        for value in forwarded {
            request.headers.append("x-forwarded-for", value.parse().unwrap());
        }
        request
    }

    #[test]
    fn networks_are_read_and_hold_what_they_say() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7", "::ffff:192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
            ("::/0", "::1", "127.0.0.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(
                network.contains(inside.parse().unwrap()),
                "{inside} in {network:?}"
            );
            assert!(
                !network.contains(outside.parse().unwrap()),
                "{outside} not in {network:?}"
            );
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "::1/129",
            "10.0.0.0/",
            "proxy",
            "10.0.0/8",
            "10.0.0.0/-1",
        ] {
            assert_eq!(wrong.parse::<Network>(), Err(NotANetwork), "{wrong}");
        }
    }

    #[test]
    fn forwarded_headers_count_from_trusted_peers_only() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (peer, forwarded, client_is) in [
            ("192.0.2.1:1", &["198.51.100.1"] as &[&str], "192.0.2.1"),
            ("10.0.0.1:1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1:1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            (
                "10.0.0.1:1",
                &["1.1.1.1", "198.51.100.1, 10.0.0.2"],
                "198.51.100.1",
            ),
            ("10.0.0.1:1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1:1", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("10.0.0.1:1", &["nonsense"], "10.0.0.1"),
            ("10.0.0.1:1", &[], "10.0.0.1"),
            ("10.0.0.1:1", &["10.0.0.3"], "10.0.0.3"),
        ] {
            let found = client(&parts(peer, forwarded), &trusted);
            assert_eq!(found, Some(client_is.parse().unwrap()), "{peer} {forwarded:?}");
        }
        assert_eq!(client(&http::Request::new(()).into_parts().0, &trusted), None);
    }
}
