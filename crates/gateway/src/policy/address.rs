//! From which address a call comes, where proxies stand in between.

use std::net::IpAddr;

use weir_core::network::Network;

use crate::fields::{self, Fields};

/// The client's address: the peer's, or, where that is a proxy that is trusted, the last of `X-Forwarded-For` that is
/// none. What cannot be read there ends the walk: then it is the proxy's that wrote it down.
pub(crate) fn client_address(peer: IpAddr, trusted: &[Network], fields: &Fields) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if trusted.is_empty() || !is_trusted(peer) {
        return peer;
    }
    let lines: Vec<&[u8]> = fields.all(b"x-forwarded-for").collect();
    let written = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    let mut address = peer;
    for text in written {
        let Some(read) = fields::text(text).and_then(|text| read(text.trim())) else { return address };
        address = read;
        if !is_trusted(address) {
            return address;
        }
    }
    address
}

/// An address, perhaps with a port.
fn read(text: &str) -> Option<IpAddr> {
    let address = text
        .parse()
        .or_else(|_| text.parse::<std::net::SocketAddr>().map(|with_port| with_port.ip()))
        .or_else(|_| text.trim_matches(['[', ']']).parse::<IpAddr>());
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, lines: &[&str], expected: &str) {
        let trusted: Vec<Network> = ["10.0.0.0/8", "127.0.0.1"].map(|text| text.parse().unwrap()).to_vec();
        let lines: Vec<String> = lines.iter().map(|line| format!("x-forwarded-for: {line}")).collect();
        let fields = Fields::of(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let found = client_address(peer.parse().unwrap(), &trusted, &fields);
        assert_eq!(found.to_string(), expected, "{peer} {lines:?}");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        check("198.51.100.1", &["203.0.113.9"], "198.51.100.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &["203.0.113.9, 10.0.0.2", "127.0.0.1"], "203.0.113.9");
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check("10.0.0.1", &["203.0.113.9, nonsense"], "10.0.0.1");
        check("10.0.0.1", &["203.0.113.9, , 10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1");
        check("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9");
    }
}
