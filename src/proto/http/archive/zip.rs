//! zip with zip64 (PKWARE APPNOTE 6.3): made in one pass over the files, so sums and sizes stand behind each file and the directory is at the end.
//!
//! Readers that stream (Java's `ZipInputStream`, Python's `stream-unzip`) refuse entries of unknown size that are stored: nothing says where they end. So files
//! are written as deflate (method 8) made of uncompressed blocks (RFC 1951 §3.2.4), which says where it ends and costs no time. Other readers that stream
//! (`unzipper` and `fflate` of npm) search the bytes for the signature of the next record. So a block ends inside each signature
//! that a file contains, for example when it is a zip itself: the header of the next block then separates its bytes.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;

use crate::error::{Error, Kind, Result};

/// Most bytes of the directory, which is kept until the end: some half a million files.
const MOST: usize = 64 << 20;

/// Sizes and offsets from here on are written in zip64's fields.
const LARGE: u64 = 0xFFFF_FFFF;
/// Counts from here on likewise.
const MANY: u64 = 0xFFFF;

/// Most bytes of an uncompressed block. The header of a block of this size or less never completes a signature: the upper byte of its
/// inverted length is 0x7F or more.
const BLOCK: usize = 32 << 10;
/// Bytes of the header of an uncompressed block.
const HEADER: u64 = 5;
/// An empty block that is the last one.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xFF, 0xFF];

/// How an entry is written.
#[derive(Clone, Copy)]
struct Way {
    method: u16,
    flags: u16,
    mode: u32,
}

/// Deflate; sums and sizes follow the file (bit 3); names are UTF-8 (bit 11).
const FILE: Way = Way { method: 8, flags: 0x0808, mode: 0o100_644 << 16 };
/// Stored; names are UTF-8. The lower half of the mode says \"folder\" to DOS.
const FOLDER: Way = Way { method: 0, flags: 0x0800, mode: 0o040_755 << 16 | 0x10 };
/// What it takes to read this: folders and data descriptors; zip64.
const VERSION: u16 = 20;
const VERSION_64: u16 = 45;
/// Written as by Unix, whose modes are in the upper half of the attributes.
const MADE_BY: u16 = 0x032D;

/// One entry until the directory is written.
struct Current {
    name: String,
    way: Way,
    size: u64,
    /// Bytes of its blocks so far.
    packed: u64,
    /// Blocks that may still be cut short without need before `packed` outgrows the fields chosen for it.
    cuts: u64,
    modified: i64,
    at: u64,
    sum: crc32fast::Hasher,
}

/// Writes what goes around the bytes of files, and the headers of blocks between them.
#[derive(Default)]
pub(super) struct Writer {
    /// Bytes written so far.
    at: u64,
    entries: u64,
    directory: BytesMut,
    current: Option<Current>,
}

impl Writer {
    pub(super) fn folder(&mut self, name: &str, modified: i64) -> Result<Bytes> {
        let entry = self.entry(format!("{name}/"), FOLDER, 0, modified)?;
        let head = entry.local()?;
        self.note(&entry, 0)?;
        Ok(self.wrote(head))
    }

    pub(super) fn file(&mut self, name: &str, size: u64, modified: i64) -> Result<Bytes> {
        let entry = self.entry(name.to_owned(), FILE, size, modified)?;
        let head = entry.local()?;
        self.current = Some(entry);
        Ok(self.wrote(head))
    }

    fn entry(&self, name: String, way: Way, size: u64, modified: i64) -> Result<Current> {
        if self.directory.len() >= MOST {
            return Err(Error::new(Kind::TooLarge, "too many files for a zip; a tar has no such limit"));
        }
        let cuts = (u64::from(u32::MAX).checked_sub(least(size))).map_or(u64::MAX, |spare| spare / HEADER);
        let sum = crc32fast::Hasher::new();
        Ok(Current { name, way, size, packed: 0, cuts, modified, at: self.at, sum })
    }

    /// A piece of a file as blocks.
    pub(super) fn take(&mut self, piece: &[u8]) -> Bytes {
        let Some(current) = &mut self.current else { return Bytes::new() };
        current.sum.update(piece);
        let out = current.blocks(piece);
        current.packed += out.len() as u64;
        self.wrote(out)
    }

    /// The last block, the sum and the sizes, behind a file's bytes.
    pub(super) fn after(&mut self) -> Result<Bytes> {
        let Some(mut current) = self.current.take() else { return Ok(Bytes::new()) };
        let sum = current.sum.clone().finalize();
        current.packed += LAST_BLOCK.len() as u64;
        let large = current.is_large();
        if !large && current.packed > u64::from(u32::MAX) {
            return Err(Error::new(Kind::Conflict, "a file came in more pieces than its fields in the zip allow"));
        }
        let mut out = BytesMut::with_capacity(32);
        out.put_slice(&LAST_BLOCK);
        out.put_u32_le(0x0807_4B50);
        out.put_u32_le(sum);
        for size in [current.packed, current.size] {
            match large {
                true => out.put_u64_le(size),
                false => out.put_u32_le(low(size)),
            }
        }
        self.note(&current, sum)?;
        Ok(self.wrote(out))
    }

    fn wrote(&mut self, bytes: BytesMut) -> Bytes {
        self.at += bytes.len() as u64;
        bytes.freeze()
    }

    /// The entry's line in the directory (§4.3.12).
    fn note(&mut self, entry: &Current, sum: u32) -> Result<()> {
        let mut wide = BytesMut::new();
        let large = entry.is_large() || entry.packed >= LARGE;
        if large {
            wide.put_u64_le(entry.size);
            wide.put_u64_le(entry.packed);
        }
        if entry.at >= LARGE {
            wide.put_u64_le(entry.at);
        }
        let mut extra = BytesMut::new();
        if !wide.is_empty() {
            extra.put_u16_le(1);
            extra.put_u16_le(narrow(wide.len())?);
            extra.put_slice(&wide);
        }
        extra.put_slice(&stamp(entry.modified));
        let out = &mut self.directory;
        out.put_u32_le(0x0201_4B50);
        out.put_u16_le(MADE_BY);
        out.put_u16_le(if wide.is_empty() { VERSION } else { VERSION_64 });
        out.put_u16_le(entry.way.flags);
        out.put_u16_le(entry.way.method);
        out.put_slice(&dos(entry.modified));
        out.put_u32_le(sum);
        for size in [entry.packed, entry.size] {
            out.put_u32_le(if large { u32::MAX } else { low(size) });
        }
        out.put_u16_le(narrow(entry.name.len())?);
        out.put_u16_le(narrow(extra.len())?);
        // No comment, first disk, no inner attributes.
        out.put_bytes(0, 6);
        out.put_u32_le(entry.way.mode);
        out.put_u32_le(low(entry.at));
        out.put_slice(entry.name.as_bytes());
        out.put_slice(&extra);
        self.entries += 1;
        Ok(())
    }

    /// The directory, and where it is (§4.3.14 to §4.3.16).
    pub(super) fn end(&mut self) -> Bytes {
        let mut out = std::mem::take(&mut self.directory);
        let (size, at) = (out.len() as u64, self.at);
        if self.entries >= MANY || size >= LARGE || at >= LARGE {
            out.put_u32_le(0x0606_4B50);
            out.put_u64_le(44);
            out.put_u16_le(MADE_BY);
            out.put_u16_le(VERSION_64);
            out.put_u64_le(0);
            out.put_u64_le(self.entries);
            out.put_u64_le(self.entries);
            out.put_u64_le(size);
            out.put_u64_le(at);
            out.put_u32_le(0x0706_4B50);
            out.put_u32_le(0);
            out.put_u64_le(at + size);
            out.put_u32_le(1);
        }
        let count = u16::try_from(self.entries).unwrap_or(u16::MAX);
        out.put_u32_le(0x0605_4B50);
        out.put_u32_le(0);
        out.put_u16_le(count);
        out.put_u16_le(count);
        out.put_u32_le(low(size));
        out.put_u32_le(low(at));
        out.put_u16_le(0);
        self.wrote(out)
    }
}

impl Current {
    /// Its sizes are written in zip64's fields. Known before its bytes are, for its head says so.
    fn is_large(&self) -> bool {
        least(self.size) > u64::from(u32::MAX)
    }

    /// The head before its bytes (§4.3.7): with sizes of nothing, for they follow.
    fn local(&self) -> Result<BytesMut> {
        let large = self.is_large();
        let mut extra = BytesMut::new();
        if large {
            extra.put_u16_le(1);
            extra.put_u16_le(16);
            extra.put_bytes(0, 16);
        }
        extra.put_slice(&stamp(self.modified));
        let mut out = BytesMut::with_capacity(64 + self.name.len());
        out.put_u32_le(0x0403_4B50);
        out.put_u16_le(if large { VERSION_64 } else { VERSION });
        out.put_u16_le(self.way.flags);
        out.put_u16_le(self.way.method);
        out.put_slice(&dos(self.modified));
        out.put_u32_le(0);
        for _ in 0..2 {
            out.put_u32_le(if large { u32::MAX } else { 0 });
        }
        out.put_u16_le(narrow(self.name.len())?);
        out.put_u16_le(narrow(extra.len())?);
        out.put_slice(self.name.as_bytes());
        out.put_slice(&extra);
        Ok(out)
    }

    fn blocks(&mut self, piece: &[u8]) -> BytesMut {
        let mut out = BytesMut::with_capacity(piece.len() + (piece.len() / BLOCK + 4) * LAST_BLOCK.len());
        let mut rest = piece;
        while !rest.is_empty() {
            let (block, behind) = rest.split_at(self.block(rest));
            let length = u16::try_from(block.len()).unwrap_or_default();
            out.put_u8(0);
            out.put_u16_le(length);
            out.put_u16_le(!length);
            out.put_slice(block);
            rest = behind;
        }
        out
    }

    /// Bytes of the next block: to the first signature, which it cuts.
    fn block(&mut self, rest: &[u8]) -> usize {
        let block = rest.get(..BLOCK).unwrap_or(rest);
        let cut = match self.cuts {
            0 => None,
            _ => memmem::find_iter(block, b"PK").find(|at| block.get(at + 2).is_some_and(|next| *next < 8)),
        };
        if cut.is_some() {
            self.cuts -= 1;
        }
        cut.map_or(block.len(), |at| at + 1)
    }
}

/// What so many bytes are in blocks, when none is cut short.
fn least(size: u64) -> u64 {
    size + (size.div_ceil(BLOCK as u64) + 1) * HEADER
}

/// All of a small number; of a large one the sign that zip64 has it.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn narrow(length: usize) -> Result<u16> {
    u16::try_from(length).map_err(|_| Error::new(Kind::TooLarge, "a path is too long for a zip"))
}

/// Time and date as DOS has them: UTC, every other second, the nearest from 1980 to 2107.
fn dos(modified: i64) -> [u8; 4] {
    let at = jiff::Timestamp::from_microsecond(modified).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
    let year = u16::try_from(at.year().saturating_sub(1980)).ok();
    let part = |number: i8| u16::try_from(number).unwrap_or_default();
    let (time, date) = match year {
        Some(128..) => (0xbf7d, 0xff9f),
        Some(year) => (
            part(at.hour()) << 11 | part(at.minute()) << 5 | (part(at.second()) / 2),
            year << 9 | part(at.month()) << 5 | part(at.day()),
        ),
        None => (0, 1 << 5 | 1),
    };
    let ([a, b], [c, d]) = (time.to_le_bytes(), date.to_le_bytes());
    [a, b, c, d]
}

/// The exact second, in the field Info-ZIP made for it. Nothing where it does not fit, and nothing before 1970: some readers take
/// the number for an unsigned one, and `jar` fails at a negative one.
fn stamp(modified: i64) -> Vec<u8> {
    let seconds = i32::try_from(modified.div_euclid(1_000_000)).ok().filter(|seconds| *seconds >= 0);
    let Some(seconds) = seconds else { return Vec::new() };
    [&b"UT\x05\x00\x01"[..], &seconds.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_sizes_and_many_files_are_written_in_zip64() {
        let mut writer = Writer::default();
        let head = writer.file("a/big", 5 << 30, 0).unwrap();
        assert_eq!(head.get(18..26), Some(&[0xFF; 8][..]));
        // As if its bytes had gone out.
        writer.at += 5 << 30;
        assert_eq!(writer.after().unwrap().len(), 29);
        writer.file("a/b", 1, 0).unwrap();
        writer.take(b"x");
        assert_eq!(writer.after().unwrap().len(), 21);
        let end = writer.end();
        let found = |mark: [u8; 4]| memchr::memmem::find(&end, &mark).is_some();
        assert!(
            found([0x50, 0x4B, 6, 6])
                && found([0x50, 0x4B, 6, 7])
                && found((5_u64 << 30).to_le_bytes()[..4].try_into().unwrap())
        );
        let mut small = Writer::default();
        small.folder("a", 0).unwrap();
        assert!(memchr::memmem::find(&small.end(), &[0x50, 0x4B, 6, 6]).is_none());
    }

    #[test]
    fn more_files_than_a_plain_zip_can_count() {
        let mut writer = Writer::default();
        let mut whole = Vec::new();
        for number in 0..66_000 {
            whole.extend_from_slice(&writer.file(&format!("d/{number}"), 1, 0).unwrap());
            whole.extend_from_slice(&writer.take(b"x"));
            whole.extend_from_slice(&writer.after().unwrap());
        }
        whole.extend_from_slice(&writer.end());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("many.zip");
        std::fs::write(&file, whole).unwrap();
        let script =
            "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); print(len(z.infolist()), z.read('d/65999'))";
        let output = std::process::Command::new("python3").args(["-c", script]).arg(&file).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "66000 b'x'\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn file(size: u64) -> Current {
        Writer::default().entry("a".into(), FILE, size, 0).unwrap()
    }

    #[test]
    fn blocks_hold_no_signature_and_unpack_to_what_they_were_made_of() {
        let mut content = b"PK\x03\x04PPK\x07\x08PK\x05\x06PK".repeat(9000);
        // lengths whose bytes read as a signature with what is around them
        for length in [0x4B50, 0x504B, !0x4B50_u16, !0x504B] {
            content.extend(std::iter::repeat_n(b'.', usize::from(length)));
            content.extend_from_slice(b"PK\x01\x02\x03\x04K\x03\x04");
        }
        let mut entry = file(content.len() as u64);
        let mut out = BytesMut::new();
        for piece in content.chunks(100_003) {
            out.extend_from_slice(&entry.blocks(piece));
        }
        out.extend_from_slice(&LAST_BLOCK);
        assert!(memmem::find_iter(&out, b"PK").all(|at| !(1..8).contains(&out[at + 2])), "a signature was left");
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::DeflateDecoder::new(&out[..]), &mut back).unwrap();
        assert!(back == content);
    }

    #[test]
    fn sizes_fit_the_fields_that_the_head_promised() {
        // the largest file whose blocks fit 32 bits, and how many of them may be cut
        let edge = (0..=LARGE).map(|less| LARGE - less).find(|size| !file(*size).is_large()).unwrap();
        for (size, large) in [(edge, false), (edge + 1, true), (LARGE - 1, true), (LARGE, true), (1 << 31, false)] {
            let mut entry = file(size);
            assert_eq!(entry.is_large(), large, "{size}");
            if large {
                continue;
            }
            assert!(least(size) + entry.cuts * HEADER <= LARGE, "{size}");
            entry.cuts = entry.cuts.min(2);
            let blocks = entry.blocks(&b"PK\x03\x04".repeat(9));
            assert_eq!(blocks.len() as u64, 36 + HEADER * (1 + if size == edge { 0 } else { 2 }), "{size}");
        }
    }

    #[test]
    fn times_are_those_of_dos() {
        assert_eq!(dos(0), [0, 0, 0x21, 0]);
        assert_eq!(dos(-86_400_000_000 * 365 * 200), dos(0));
        // 2107-12-31 23:59:58, also for what is later
        for later in [4_354_819_198_000_000, 4_354_819_200_000_000, 7_000_000_000_000_000] {
            assert_eq!(dos(later), [0x7D, 0xBF, 0x9F, 0xFF], "{later}");
        }
        // 2026-11-23 03:04:06
        assert_eq!(dos(1_795_403_046_000_000), [0x83, 0x18, 0x77, 0x5D]);
    }
}
