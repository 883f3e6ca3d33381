//! PROXY protocol v1 and v2 from trusted networks.
//!
//! The parser is pure and says how many bytes surely still belong to the header, so that the reader never takes one byte of what
//! comes after it (a TLS hello, a command).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// PROXY protocol §2.2: begins every version 2 header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// PROXY protocol §2.1: the longest version 1 line, with its CRLF.
const LINE: usize = 107;
/// Addresses and extensions of version 2; what load balancers add (a client certificate) fits many times.
const BLOCK: usize = 16 << 10;

/// The peer and our address as the proxy saw them; `None` when it speaks for itself (health checks).
pub type Named = Option<(SocketAddr, SocketAddr)>;

/// What a piece of a header is.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header is complete.
    Done(Named),
    /// At least so many more bytes belong to it.
    Need(usize),
}

/// Reads a header and nothing behind it.
///
/// # Errors
/// `InvalidData` in words; `TimedOut`; the socket's.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), deadline: Duration) -> io::Result<Named> {
    let reading = async {
        let mut held = Vec::with_capacity(LINE);
        loop {
            match parse(&held).map_err(|words| io::Error::new(io::ErrorKind::InvalidData, words))? {
                Parsed::Done(named) => return Ok(named),
                Parsed::Need(more) => {
                    let had = held.len();
                    let taken = stream.take(more as u64).read_to_end(&mut held).await?;
                    if taken < more {
                        let words = if had == 0 && taken == 0 {
                            "it left without a header"
                        } else {
                            "it left within its header"
                        };
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, words));
                    }
                }
            }
        }
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "its PROXY header took too long");
    tokio::time::timeout(deadline, reading).await.unwrap_or_else(|_| Err(late()))
}

/// Parses what has been read so far.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(bytes: &[u8]) -> Result<Parsed, &'static str> {
    if bytes.len() < SIGNATURE.len() {
        // Both versions are longer than this, and a wrong beginning need not be waited out.
        return match SIGNATURE.starts_with(bytes) || b"PROXY ".starts_with(bytes) || bytes.starts_with(b"PROXY ") {
            true => Ok(Parsed::Need(SIGNATURE.len() - bytes.len())),
            false => Err(NOT_A_HEADER),
        };
    }
    match bytes.strip_prefix(SIGNATURE) {
        Some(rest) => version_two(rest),
        None if bytes.starts_with(b"PROXY ") => version_one(bytes),
        None => Err(NOT_A_HEADER),
    }
}

const NOT_A_HEADER: &str = "it did not begin with a PROXY protocol header; turn the header on at the proxy, or take its address out of [limits] proxy_from";

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`
fn version_one(bytes: &[u8]) -> Result<Parsed, &'static str> {
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        if bytes.contains(&b'\n') || bytes.len() >= LINE {
            return Err("its PROXY v1 line does not end in CRLF within 107 bytes");
        }
        return Ok(Parsed::Need(if bytes.ends_with(b"\r") { 1 } else { 2.min(LINE - bytes.len()) }));
    };
    let line = std::str::from_utf8(line).map_err(|_| "its PROXY v1 line is not ASCII")?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Parsed::Done(None));
    }
    let (Some(source), Some(target), Some(from), Some(to), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err("its PROXY v1 line does not have two addresses and two ports");
    };
    let address = |text: &str| -> Result<IpAddr, &'static str> {
        let parsed = match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => return Err("its PROXY v1 line names neither TCP4, TCP6 nor UNKNOWN"),
        };
        parsed.ok_or("its PROXY v1 line holds a wrong address")
    };
    let port = |text: &str| -> Result<u16, &'static str> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| plain).ok_or("its PROXY v1 line holds a wrong port")
    };
    let peer = SocketAddr::new(address(source)?, port(from)?);
    let local = SocketAddr::new(address(target)?, port(to)?);
    Ok(Parsed::Done(Some((peer, local))))
}

/// What follows the signature: version and command, family, length, addresses, extensions.
fn version_two(rest: &[u8]) -> Result<Parsed, &'static str> {
    let &[command, family, high, low, ref block @ ..] = rest else {
        return Ok(Parsed::Need(4 - rest.len()));
    };
    if command >> 4 != 2 {
        return Err("its PROXY header has a version other than 1 or 2");
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BLOCK {
        return Err("its PROXY v2 header is longer than 16 KiB");
    }
    match length.checked_sub(block.len()) {
        Some(0) => {}
        Some(missing) => return Ok(Parsed::Need(missing)),
        None => return Err("more than a PROXY v2 header was read"),
    }
    match (command & 0x0f, family) {
        // LOCAL: the proxy speaks for itself. PROXY with a family we have no addresses for: the connection's own are used.
        (0, _) | (1, 0x00 | 0x31 | 0x32) => Ok(Parsed::Done(None)),
        (1, 0x11) => ipv4(block).ok_or(SHORT).map(|named| Parsed::Done(Some(named))),
        (1, 0x21) => ipv6(block).ok_or(SHORT).map(|named| Parsed::Done(Some(named))),
        (1, 0x12 | 0x22) => Err("its PROXY v2 header speaks of UDP on a TCP connection"),
        (1, _) => Err("its PROXY v2 header names an unknown address family"),
        _ => Err("its PROXY v2 header has an unknown command"),
    }
}

const SHORT: &str = "its PROXY v2 header is shorter than its addresses";

fn ipv4(block: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (source, rest) = block.split_first_chunk::<4>()?;
    let (target, rest) = rest.split_first_chunk::<4>()?;
    let (from, to) = ports(rest)?;
    Some((SocketAddr::from((*source, from)), SocketAddr::from((*target, to))))
}

fn ipv6(block: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (source, rest) = block.split_first_chunk::<16>()?;
    let (target, rest) = rest.split_first_chunk::<16>()?;
    let (from, to) = ports(rest)?;
    Some((SocketAddr::from((*source, from)), SocketAddr::from((*target, to))))
}

fn ports(rest: &[u8]) -> Option<(u16, u16)> {
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, _extensions) = rest.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*from), u16::from_be_bytes(*to)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn two(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        bytes.extend(block);
        bytes
    }

    fn headers() -> Vec<(Vec<u8>, Named)> {
        let four = Some(("192.0.2.1:56324".parse().unwrap(), "198.51.100.1:443".parse().unwrap()));
        let six = Some(("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:65535".parse().unwrap()));
        let block4 = [&[192, 0, 2, 1, 198, 51, 100, 1][..], &56324_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat();
        let with_extension = [&block4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        let ip6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let block6 = [&ip6("2001:db8::1")[..], &ip6("2001:db8::2"), &[0, 1], &[255, 255]].concat();
        vec![
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), four),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(), six),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), None),
            (two(0x21, 0x11, &block4), four),
            (two(0x21, 0x11, &with_extension), four),
            (two(0x21, 0x21, &block6), six),
            (two(0x20, 0x00, &[]), None),
            (two(0x21, 0x31, &[7; 216]), None),
        ]
    }

    #[test]
    fn every_cut_of_a_header_asks_for_no_byte_behind_it() {
        for (bytes, named) in headers() {
            for cut in 0..bytes.len() {
                match parse(&bytes[..cut]) {
                    Ok(Parsed::Need(more)) => {
                        assert!(more > 0 && cut + more <= bytes.len(), "{bytes:?} at {cut}: {more}");
                    }
                    other => panic!("{bytes:?} at {cut}: {other:?}"),
                }
            }
            assert_eq!(parse(&bytes), Ok(Parsed::Done(named)));
        }
    }

    #[test]
    fn what_is_no_header_is_refused_in_words() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"G",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 5\r\n",
            b"PROXY TCP4 2001:db8::1 198.51.100.1 56324 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
            b"PROXY TCP5 192.0.2.1 198.51.100.1 1 443\r\n",
            b"PROXY UNKNOWN\n",
            &two(0x21, 0x11, &[0; 11]),
            &two(0x21, 0x12, &[0; 12]),
            &two(0x22, 0x11, &[0; 12]),
            &two(0x31, 0x11, &[0; 12]),
            &two(0x21, 0x77, &[0; 12]),
            &two(0x20, 0x00, &vec![0; BLOCK + 1]),
        ] {
            assert!(parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(parse(format!("PROXY TCP4 {}", "1".repeat(100)).as_bytes()).is_err());
    }

    #[tokio::test]
    async fn the_reader_leaves_what_follows_the_header() {
        for (header, named) in headers() {
            let wire = [&header[..], b"EHLO x\r\n"].concat();
            let mut rest = &wire[..];
            assert_eq!(read(&mut rest, Duration::from_secs(1)).await.unwrap(), named);
            assert_eq!(rest, b"EHLO x\r\n");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(tail in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let head: &[u8] = match kind { 0 => b"", 1 => b"PROXY ", _ => SIGNATURE };
            let _ = parse(&[head, &tail].concat());
        }
    }
}
