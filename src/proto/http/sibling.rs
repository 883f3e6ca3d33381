//! Files compressed beforehand (`a.css.gz` beside `a.css`): sent in a file's place only where they give exactly its bytes.
//!
//! Whoever may create files beside another one must not decide by that what readers of the other one get. So a sibling is unpacked and
//! compared once for each pair of versions.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::hub::Download;
use crate::proto::http::coding::Coding;
use crate::proto::http::compress;

/// Pairs of which is known what they are; beyond it all are compared again.
const MOST_KNOWN: usize = 16 << 10;
/// Bytes compared at once.
const PIECE: usize = 64 << 10;
/// Largest window of zstd, as RFC 9659 bounds it for HTTP (2^23 bytes).
const ZSTD_WINDOW: u32 = 23;

/// An original and its sibling, by their tags.
type Pair = (u64, u64, Coding);

/// What is known of siblings.
pub struct Siblings {
    /// Larger originals are not compared, and sent as they are.
    largest: u64,
    known: Mutex<HashMap<Pair, bool>>,
}

impl Siblings {
    pub fn new(largest: u64) -> Self {
        Self { largest, known: Mutex::default() }
    }

    /// True when the sibling, unpacked, is the original byte by byte.
    pub async fn is_the_same(&self, original: &Download, sibling: &Download, coding: Coding) -> bool {
        let size = original.node().size;
        if size > self.largest {
            return false;
        }
        let pair = (original.node().tag, sibling.node().tag, coding);
        if let Some(known) = self.known.lock().get(&pair) {
            return *known;
        }
        let files = (Bytes::of(original), Bytes::of(sibling));
        let compared = compress::turn(move || is_same(files.0, files.1, coding)).await;
        // A file that changed under the comparison has another tag; what the disk refuses is asked for again.
        let (Ok(same), true) = (compared, original.is_unchanged() && sibling.is_unchanged()) else { return false };
        let mut known = self.known.lock();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(pair, same);
        same
    }
}

/// A file's bytes from its beginning to the length it had.
struct Bytes {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Bytes {
    fn of(download: &Download) -> Self {
        Self { file: download.file(), at: 0, end: download.node().size }
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..left).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// What cannot be unpacked is not the same. (brotli's end is its own: what follows it is read by nobody.)
fn is_same(original: impl Read, mut sibling: impl Read, coding: Coding) -> io::Result<bool> {
    let unpacked = match coding {
        Coding::Brotli => compare(original, brotli::Decompressor::new(&mut sibling, PIECE)),
        Coding::Gzip => compare(original, flate2::read::MultiGzDecoder::new(&mut sibling)),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(&mut sibling)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            compare(original, decoder)
        }
    };
    // Nothing may follow what was unpacked.
    Ok(unpacked && sibling.read(&mut [0])? == 0)
}

fn compare(mut original: impl Read, mut other: impl Read) -> bool {
    let (mut one, mut two) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let (Ok(first), Ok(second)) = (fill(&mut original, &mut one), fill(&mut other, &mut two)) else { return false };
        if one.get(..first) != two.get(..second) {
            return false;
        }
        if first == 0 {
            return true;
        }
    }
}

/// Reads until the buffer is full or nothing more comes.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(coding: Coding, text: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Brotli => {
                let mut encoder = brotli::CompressorWriter::new(Vec::new(), PIECE, 4, 19);
                encoder.write_all(text).unwrap();
                encoder.into_inner()
            }
            Coding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Zstd => zstd::encode_all(text, 9).unwrap(),
        }
    }

    #[test]
    fn only_what_gives_the_same_bytes_is_the_same() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(|n| (n % 977).to_string().into_bytes()).collect();
        let mut other = text.clone();
        *other.last_mut().unwrap() ^= 1;
        for coding in Coding::ALL {
            let right = packed(coding, &text);
            let same = |sibling: &[u8]| is_same(&text[..], sibling, coding).unwrap_or(false);
            assert!(same(&right), "{coding:?}");
            assert!(coding == Coding::Brotli || !same(&[&right[..], b"x"].concat()), "{coding:?}: something behind it");
            for (what, wrong) in [
                ("nothing", Vec::new()),
                ("the text itself", text.clone()),
                ("another text", packed(coding, &other)),
                ("a longer text", packed(coding, &[&text[..], b"x"].concat())),
                ("a shorter text", packed(coding, &text[..text.len() - 1])),
                ("cut off", right[..right.len() - 1].to_vec()),
            ] {
                assert!(!same(&wrong), "{coding:?}: {what}");
            }
            assert!(is_same(&b""[..], &packed(coding, b"")[..], coding).unwrap());
            let bomb = packed(coding, &vec![0; 32 << 20]);
            assert!(!is_same(&b"small"[..], &bomb[..], coding).unwrap_or(false));
        }
    }
}
