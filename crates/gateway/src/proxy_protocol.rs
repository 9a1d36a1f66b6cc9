//! The PROXY protocol, versions 1 and 2: a load balancer says for whom it connects.
//!
//! The server reads it first thing on connections from the peers that the configuration names, and from nobody
//! else: whoever may write it chooses the address that upstreams and logs see. Such a peer has to write it; a
//! connection without is closed, since what its first bytes are cannot be known.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
/// Longest rest of a version 2 header; balancers add notes to the addresses, which are passed over.
const REST_BYTES_MAX: u16 = 2048;

/// Reads the header, and nothing behind it; `None`: the peer speaks for itself.
///
/// # Errors
/// When it is none, or the connection breaks.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    // As long as version 2's; version 1 has no shorter line.
    let mut begin = [0; SIGNATURE.len()];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE { read_binary(stream).await } else { read_line(stream, begin.to_vec()).await }
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin), mut line: Vec<u8>) -> io::Result<Option<IpAddr>> {
    while !line.ends_with(b"\r\n") {
        // Before anything is waited for that may never come.
        if !line.starts_with(b"PROXY ") || line.len() >= LINE_BYTES_MAX {
            return Err(invalid());
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line).ok_or_else(invalid)
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let (command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = stream.read_u16().await?;
    if length > REST_BYTES_MAX {
        return Err(invalid());
    }
    let mut rest = vec![0; usize::from(length)];
    stream.read_exact(&mut rest).await?;
    parse_binary(command, family, &rest).ok_or_else(invalid)
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the connection does not begin with a PROXY header")
}

/// The outer `None`: malformed.
fn parse_line(line: &[u8]) -> Option<Option<IpAddr>> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?.strip_prefix("PROXY ")?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let parts: Vec<&str> = text.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = parts[..] else { return None };
    let (source, destination): (IpAddr, IpAddr) = (source.parse().ok()?, destination.parse().ok()?);
    let _: (u16, u16) = (source_port.parse().ok()?, destination_port.parse().ok()?);
    let is_right = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    is_right.then_some(Some(source))
}

/// The outer `None`: malformed.
fn parse_binary(command: u8, family: u8, rest: &[u8]) -> Option<Option<IpAddr>> {
    match (command, family) {
        // LOCAL: the balancer's own health check.
        (0x20, _) => Some(None),
        (0x21, 0x11) if rest.len() >= 12 => {
            let source: [u8; 4] = rest[..4].try_into().ok()?;
            Some(Some(Ipv4Addr::from(source).into()))
        }
        (0x21, 0x21) if rest.len() >= 36 => {
            let source: [u8; 16] = rest[..16].try_into().ok()?;
            Some(Some(Ipv6Addr::from(source).into()))
        }
        // Other families have no address that could be shown.
        (0x21, 0x00) => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rest` is what must not be read.
    #[track_caller]
    fn check(header: &[u8], expected: Option<&str>) {
        let bytes = [header, b"rest"].concat();
        let mut stream = &bytes[..];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(read(&mut stream)).ok();
        let found = found.map(|address| address.map_or("itself".into(), |address| address.to_string()));
        assert_eq!(found.as_deref(), expected, "{:?}", String::from_utf8_lossy(header));
        assert!(expected.is_none() || stream == b"rest");
    }

    #[test]
    fn version_1() {
        check(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n", Some("192.0.2.7"));
        check(b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 80\r\n", Some("2001:db8::7"));
        check(b"PROXY UNKNOWN\r\n", Some("itself"));
        check(b"PROXY UNKNOWN whatever this is\r\n", Some("itself"));
        for wrong in [
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 5000 80\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000 80000\r\n",
            "PROXY TCP4  192.0.2.7 192.0.2.1 5000 80\r\n",
            "PROXY UDP4 192.0.2.7 192.0.2.1 5000 80\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\n",
        ] {
            check(wrong.as_bytes(), None);
        }
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).as_bytes(), None);
    }

    #[test]
    fn version_2() {
        let header = |command: u8, family: u8, rest: &[u8]| {
            let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
            [&SIGNATURE[..], &[command, family], &length, rest].concat()
        };
        let addresses = [192, 0, 2, 7, 192, 0, 2, 1, 0, 80, 0, 81];
        check(&header(0x21, 0x11, &addresses), Some("192.0.2.7"));
        check(&header(0x21, 0x11, &[&addresses[..], &[3, 0, 1, 9]].concat()), Some("192.0.2.7"));
        let mut long = [0; 36];
        long[15] = 7;
        check(&header(0x21, 0x21, &long), Some("::7"));
        check(&header(0x20, 0x00, b""), Some("itself"));
        check(&header(0x21, 0x00, b""), Some("itself"));
        check(&header(0x21, 0x11, &addresses[..11]), None);
        check(&header(0x31, 0x11, &addresses), None);
        check(&header(0x21, 0x11, &[0; 3000]), None);
    }
}
