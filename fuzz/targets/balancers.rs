#![no_main]
//! The header of the PROXY protocol: the bytes are what a balancer sends first.
//!
//! What is read must not depend on how the bytes arrive, must be what a plain reading finds, and nothing behind the
//! header may be consumed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use weir_fuzz::{cut, ways};
use weir_gateway::fuzzing::proxy_header;

fuzz_target!(|bytes: &[u8]| {
    let expected = plain_binary(bytes).or_else(|| plain_line(bytes));
    for pieces in ways(bytes) {
        assert_eq!(proxy_header(&pieces), expected);
    }
});

/// An address, if there is one, and how many bytes are behind the header.
type Header = (Option<IpAddr>, usize);

/// Version 1.
fn plain_line(bytes: &[u8]) -> Option<Header> {
    let (line, rest) = cut(bytes, b"\r\n").filter(|(line, _)| line.len() <= 105)?;
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let address = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", from, to, a, b] if is_port(a) && is_port(b) => {
            to.parse::<Ipv4Addr>().ok()?;
            Some(from.parse::<Ipv4Addr>().ok()?.into())
        }
        ["PROXY", "TCP6", from, to, a, b] if is_port(a) && is_port(b) => {
            to.parse::<Ipv6Addr>().ok()?;
            Some(from.parse::<Ipv6Addr>().ok()?.into())
        }
        _ => return None,
    };
    Some((address, rest.len()))
}

/// Version 2.
fn plain_binary(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n")?;
    let [command, family, high, low, rest @ ..] = bytes else { return None };
    let length = usize::from(*high) << 8 | usize::from(*low);
    let addresses = rest.get(..length).filter(|_| length <= 2048)?;
    let address = match (*command, *family) {
        (0x20, _) | (0x21, 0x00) => None,
        (0x21, 0x11) if length >= 12 => Some(<[u8; 4]>::try_from(&addresses[..4]).ok()?.into()),
        (0x21, 0x21) if length >= 36 => Some(<[u8; 16]>::try_from(&addresses[..16]).ok()?.into()),
        _ => return None,
    };
    Some((address, rest.len() - length))
}
