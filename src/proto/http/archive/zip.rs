//! zip with zip64 (PKWARE APPNOTE 6.3): files stored as they are, their sums and sizes behind them, the directory at the end.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};

/// Most bytes of the directory, which is kept until the end: some half a million files.
const MOST: usize = 64 << 20;

/// Sizes and offsets from here on are written in zip64's fields.
const LARGE: u64 = 0xFFFF_FFFF;
/// Counts from here on likewise.
const MANY: u64 = 0xFFFF;

/// Sums and sizes follow the file (bit 3), names are UTF-8 (bit 11).
const FLAGS: u16 = 0x0808;
/// Names are UTF-8.
const FOLDER_FLAGS: u16 = 0x0800;
/// What it takes to read this: folders and data descriptors; zip64.
const VERSION: u16 = 20;
const VERSION_64: u16 = 45;
/// Written as by Unix, whose modes are in the upper half of the attributes.
const MADE_BY: u16 = 0x032D;
const FILE_MODE: u32 = 0o100_644 << 16;
/// The lower half says \"folder\" to DOS.
const FOLDER_MODE: u32 = 0o040_755 << 16 | 0x10;

/// One entry until the directory is written.
struct Current {
    name: String,
    size: u64,
    modified: i64,
    at: u64,
    sum: crc32fast::Hasher,
}

/// Writes what goes around the bytes of files.
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
        let name = format!("{name}/");
        let entry = Current { name, size: 0, modified, at: self.at, sum: crc32fast::Hasher::new() };
        let head = entry.local(FOLDER_FLAGS);
        self.note(&entry, 0, FOLDER_FLAGS, FOLDER_MODE)?;
        Ok(self.wrote(head))
    }

    pub(super) fn file(&mut self, name: &str, size: u64, modified: i64) -> Result<Bytes> {
        if self.directory.len() >= MOST {
            return Err(Error::new(Kind::TooLarge, "too many files for a zip; a tar has no such limit"));
        }
        let entry = Current { name: name.to_owned(), size, modified, at: self.at, sum: crc32fast::Hasher::new() };
        let head = entry.local(FLAGS);
        self.current = Some(entry);
        Ok(self.wrote(head))
    }

    pub(super) fn take(&mut self, piece: &[u8]) {
        self.at += piece.len() as u64;
        if let Some(current) = &mut self.current {
            current.sum.update(piece);
        }
    }

    /// The sum and the sizes, behind a file's bytes.
    pub(super) fn after(&mut self) -> Result<Bytes> {
        let Some(current) = self.current.take() else { return Ok(Bytes::new()) };
        let sum = current.sum.clone().finalize();
        let mut out = BytesMut::with_capacity(24);
        out.put_u32_le(0x0807_4B50);
        out.put_u32_le(sum);
        for _ in 0..2 {
            match current.size >= LARGE {
                true => out.put_u64_le(current.size),
                false => out.put_u32_le(low(current.size)),
            }
        }
        self.note(&current, sum, FLAGS, FILE_MODE)?;
        Ok(self.wrote(out))
    }

    fn wrote(&mut self, bytes: BytesMut) -> Bytes {
        self.at += bytes.len() as u64;
        bytes.freeze()
    }

    /// The entry's line in the directory (§4.3.12).
    fn note(&mut self, entry: &Current, sum: u32, flags: u16, mode: u32) -> Result<()> {
        let mut wide = BytesMut::new();
        if entry.size >= LARGE {
            wide.put_u64_le(entry.size);
            wide.put_u64_le(entry.size);
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
        out.put_u16_le(flags);
        out.put_u16_le(0);
        out.put_slice(&dos(entry.modified));
        out.put_u32_le(sum);
        out.put_u32_le(low(entry.size));
        out.put_u32_le(low(entry.size));
        out.put_u16_le(narrow(entry.name.len())?);
        out.put_u16_le(narrow(extra.len())?);
        // No comment, first disk, no inner attributes.
        out.put_bytes(0, 6);
        out.put_u32_le(mode);
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
    /// The head before its bytes (§4.3.7): with sizes of nothing, for they follow.
    fn local(&self, flags: u16) -> BytesMut {
        let large = self.size >= LARGE;
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
        out.put_u16_le(flags);
        out.put_u16_le(0);
        out.put_slice(&dos(self.modified));
        out.put_u32_le(0);
        for _ in 0..2 {
            out.put_u32_le(if large { u32::MAX } else { 0 });
        }
        out.put_u16_le(u16::try_from(self.name.len()).unwrap_or(u16::MAX));
        out.put_u16_le(u16::try_from(extra.len()).unwrap_or(u16::MAX));
        out.put_slice(self.name.as_bytes());
        out.put_slice(&extra);
        out
    }
}

/// All of a small number; of a large one the sign that zip64 has it.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn narrow(length: usize) -> Result<u16> {
    u16::try_from(length).map_err(|_| Error::new(Kind::TooLarge, "a path is too long for a zip"))
}

/// Time and date as DOS has them: from 1980, two seconds exact, here UTC.
fn dos(modified: i64) -> [u8; 4] {
    let at = jiff::Timestamp::from_microsecond(modified).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
    let year = u16::try_from(at.year()).ok().and_then(|year| year.checked_sub(1980)).filter(|year| *year < 128);
    let part = |number: i8| u16::try_from(number).unwrap_or_default();
    let (time, date) = match year {
        Some(year) => (
            part(at.hour()) << 11 | part(at.minute()) << 5 | (part(at.second()) / 2),
            year << 9 | part(at.month()) << 5 | part(at.day()),
        ),
        None => (0, 1 << 5 | 1),
    };
    let ([a, b], [c, d]) = (time.to_le_bytes(), date.to_le_bytes());
    [a, b, c, d]
}

/// The exact second, in the field Info-ZIP made for it; nothing where it does not fit.
fn stamp(modified: i64) -> Vec<u8> {
    let Ok(seconds) = i32::try_from(modified.div_euclid(1_000_000)) else { return Vec::new() };
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
        assert_eq!(writer.after().unwrap().len(), 24);
        writer.file("a/b", 1, 0).unwrap();
        writer.take(b"x");
        assert_eq!(writer.after().unwrap().len(), 16);
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
            writer.take(b"x");
            whole.push(b'x');
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

    #[test]
    fn times_are_those_of_dos() {
        assert_eq!(dos(0), [0, 0, 0x21, 0]);
        // 2026-11-23 03:04:06
        assert_eq!(dos(1_795_403_046_000_000), [0x83, 0x18, 0x77, 0x5D]);
    }
}
