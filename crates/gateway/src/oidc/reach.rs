//! Which addresses may be asked for keys: public ones, and private ones that the operator names. A URL of a document that
//! somebody else wrote must not lead into the gateway's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_core::network::Network;

/// Whether an address may be asked.
pub(super) fn may_reach(address: IpAddr, private_networks: &[Network]) -> bool {
    let address = address.to_canonical();
    is_public(address) || private_networks.iter().any(|network| network.contains(address))
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// RFC 6890, and its successors' registry.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_special = match first {
        0 | 10 | 127 => true,
        100 => second & 0xc0 == 64,
        169 => second == 254,
        172 => second & 0xf0 == 16,
        192 => second == 168 || (second == 0 && matches!(third, 0 | 2)),
        198 => matches!(second, 18 | 19) || (second == 51 && third == 100),
        203 => second == 0 && third == 113,
        _ => first >= 224,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // An IPv4 address inside, behind a translator.
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast, without documentation and tunnels that may end anywhere (Teredo, 6to4).
    segments[0] & 0xe000 == 0x2000
        && !(segments[0] == 0x2001 && matches!(segments[1], 0 | 0xdb8))
        && segments[0] != 0x2002
        && segments[0] != 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_unless_named() {
        for (address, expected) in [
            ("9.9.9.9", true),
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.31.0.1", false),
            ("172.32.0.1", true),
            ("192.168.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("2620:fe::fe", true),
            ("::1", false),
            ("::", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:9.9.9.9", true),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(may_reach(address.parse().unwrap(), &[]), expected, "{address}");
        }
        let named = ["127.0.0.0/8".parse().unwrap()];
        assert!(may_reach("127.0.0.1".parse().unwrap(), &named));
        assert!(may_reach("::ffff:127.0.0.1".parse().unwrap(), &named));
        assert!(!may_reach("10.0.0.1".parse().unwrap(), &named));
    }
}
