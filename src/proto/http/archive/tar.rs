//! tar as POSIX.1-2001 has it (pax): `ustar` heads, with a head of records before those whose name, size or time does not fit.

use bytes::{BufMut, Bytes, BytesMut};

/// Everything is written in blocks of this size.
const BLOCK: usize = 512;
/// Longest name that fits into a `ustar` head without its prefix.
const NAME: usize = 100;
/// Numbers from here on do not fit into eleven octal digits.
const LARGE: u64 = 1 << 33;

/// Writes what goes around the bytes of files.
#[derive(Default)]
pub(super) struct Writer {
    /// Size of the file that is being written.
    size: u64,
}

impl Writer {
    pub(super) fn folder(&mut self, name: &str, modified: i64) -> Bytes {
        self.size = 0;
        entry(&format!("{name}/"), 0, modified, b'5', 0o755)
    }

    pub(super) fn file(&mut self, name: &str, size: u64, modified: i64) -> Bytes {
        self.size = size;
        entry(name, size, modified, b'0', 0o644)
    }

    /// Fills the file's last block.
    pub(super) fn after(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        pad(&mut out, self.size);
        out.freeze()
    }
}

/// Two empty blocks end an archive.
pub(super) fn end() -> Bytes {
    Bytes::from_static(&[0; 2 * BLOCK])
}

fn entry(name: &str, size: u64, modified: i64, kind: u8, mode: u64) -> Bytes {
    let seconds = modified.div_euclid(1_000_000);
    let plain_time = u64::try_from(seconds).ok().filter(|seconds| *seconds < LARGE);
    let mut records = Vec::new();
    if name.len() > NAME || !name.is_ascii() {
        record(&mut records, "path", name);
    }
    if size >= LARGE {
        record(&mut records, "size", &size.to_string());
    }
    if plain_time.is_none() {
        record(&mut records, "mtime", &seconds.to_string());
    }
    let mut out = BytesMut::with_capacity(BLOCK * 4);
    let time = plain_time.unwrap_or(0);
    if !records.is_empty() {
        out.put_slice(&head("pax", records.len() as u64, time, b'x', 0o644));
        out.put_slice(&records);
        pad(&mut out, records.len() as u64);
    }
    out.put_slice(&head(name, if size < LARGE { size } else { 0 }, time, kind, mode));
    out.freeze()
}

/// `LENGTH key=value\n`, where the length counts itself.
fn record(into: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    into.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// One `ustar` head. A longer name is cut: the records before it have all of it.
fn head(name: &str, size: u64, seconds: u64, kind: u8, mode: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(BLOCK);
    let fitting = name.as_bytes().get(..NAME).unwrap_or(name.as_bytes());
    out.put_slice(fitting);
    out.put_bytes(0, NAME - fitting.len());
    out.put_slice(format!("{mode:07o}\0{0:07o}\0{0:07o}\0{size:011o}\0{seconds:011o}\0", 0).as_bytes());
    // The sum counts itself as blanks.
    out.put_bytes(b' ', 8);
    out.put_u8(kind);
    out.put_bytes(0, 100);
    out.put_slice(b"ustar\x0000");
    out.put_bytes(0, BLOCK - out.len());
    let sum: u64 = out.iter().map(|byte| u64::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    if let Some(field) = out.get_mut(148..156) {
        field.copy_from_slice(text.as_bytes());
    }
    out.freeze()
}

fn pad(out: &mut BytesMut, size: u64) {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over > 0 {
        out.put_bytes(0, BLOCK - over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 3, 80, 88, 89, 90, 91, 92, 980, 990, 995, 1000] {
            let mut records = Vec::new();
            record(&mut records, "path", &"x".repeat(length));
            let text = String::from_utf8(records).unwrap();
            let said: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, text.len(), "{length}");
        }
    }

    #[test]
    fn what_does_not_fit_gets_records() {
        assert_eq!(entry("a", 5, 0, b'0', 0o644).len(), BLOCK);
        for (name, size, modified) in [("\u{e9}", 5, 0), ("a", LARGE, 0), ("a", 5, -1)] {
            assert_eq!(entry(name, size, modified, b'0', 0o644).len(), 3 * BLOCK, "{name} {size} {modified}");
        }
    }
}
