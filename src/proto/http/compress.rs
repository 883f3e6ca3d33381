//! Compression while a file is sent: a piece at a time, on threads that serve nobody, as many at once as there are cores.
//!
//! Only files are compressed, never pages of ours: a page with a secret in it, compressed beside text of an attacker's, gives the
//! secret away by its length (BREACH).

use std::io::{self, Write};
use std::sync::LazyLock;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::hub::Download;
use crate::proto::http::body::Flow;
use crate::proto::http::coding::Coding;

/// Bytes compressed in one turn.
const TURN: usize = 64 << 10;
/// brotli's window (2^19 bytes) and input buffer: its defaults take 8 MiB for each response.
const BROTLI_WINDOW: u32 = 19;

/// Turns at once, over all connections.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// A compressor with what it has written and nobody took.
enum Encoder {
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding, level: u32) -> io::Result<Self> {
        Ok(match coding {
            Coding::Brotli => {
                Self::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), TURN, level, BROTLI_WINDOW)))
            }
            Coding::Gzip => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level))),
            Coding::Zstd => {
                let level = i32::try_from(level).unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
                Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), level)?)
            }
        })
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Brotli(encoder) => {
                encoder.write_all(bytes)?;
                std::mem::take(encoder.get_mut())
            }
            Self::Gzip(encoder) => {
                encoder.write_all(bytes)?;
                std::mem::take(encoder.get_mut())
            }
            Self::Zstd(encoder) => {
                encoder.write_all(bytes)?;
                std::mem::take(encoder.get_mut())
            }
        })
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// One turn of work away from the connections.
pub async fn turn<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let _place = TURNS.acquire().await.map_err(io::Error::other)?;
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Compresses what fits into one turn.
///
/// # Errors
/// The compressor's.
pub async fn whole(coding: Coding, level: u32, bytes: Bytes) -> io::Result<Bytes> {
    let work = move || {
        let mut encoder = Encoder::new(coding, level)?;
        let mut all = encoder.push(&bytes)?;
        all.extend(encoder.finish()?);
        Ok(all.into())
    };
    turn(work).await
}

/// A file on its way out, compressed as the wire takes it.
pub struct Compressed {
    download: Download,
    offset: u64,
    coding: Coding,
    level: u32,
    encoder: Option<Encoder>,
    done: bool,
}

impl Compressed {
    /// All of this file.
    pub fn new(download: Download, coding: Coding, level: u32) -> Self {
        Self { download, offset: 0, coding, level, encoder: None, done: false }
    }

    async fn next_piece(&mut self) -> io::Result<Vec<u8>> {
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => Encoder::new(self.coding, self.level)?,
        };
        let left = self.download.node().size.saturating_sub(self.offset);
        if left == 0 {
            self.done = true;
            return turn(move || encoder.finish()).await;
        }
        let length = usize::try_from(left).unwrap_or(TURN).min(TURN);
        let bytes = self.download.read_at(self.offset, length).await.map_err(io::Error::other)?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
        }
        self.offset += bytes.len() as u64;
        let mut encoder = encoder;
        let (encoder, out) = turn(move || {
            let out = encoder.push(&bytes)?;
            Ok((encoder, out))
        })
        .await?;
        self.encoder = Some(encoder);
        Ok(out)
    }
}

#[async_trait]
impl Flow for Compressed {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.done {
            let piece = self.next_piece().await?;
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn unpacked(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        match coding {
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut text).unwrap(),
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut text).unwrap(),
            Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut text).unwrap(),
        };
        text
    }

    #[test]
    fn every_coding_gives_back_what_it_was_given_in_pieces() {
        let text: Vec<u8> = (0..300_000_u32).flat_map(|n| (n % 977).to_string().into_bytes()).collect();
        for coding in Coding::ALL {
            for level in [1, 4, 9] {
                let mut encoder = Encoder::new(coding, level).unwrap();
                let mut packed = Vec::new();
                for piece in text.chunks(TURN) {
                    packed.extend(encoder.push(piece).unwrap());
                }
                packed.extend(encoder.finish().unwrap());
                assert!(packed.len() < text.len() / 2, "{coding:?} {level}: {}", packed.len());
                assert!(unpacked(coding, &packed) == text, "{coding:?} {level}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_at_all_is_a_whole_stream_too() {
        for coding in Coding::ALL {
            let packed = whole(coding, 4, Bytes::new()).await.unwrap();
            assert!(unpacked(coding, &packed).is_empty(), "{coding:?}");
        }
    }
}
