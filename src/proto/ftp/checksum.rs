//! Checksums of files: HASH (draft-bryan-ftpext-hash), XCRC and its kin, MD5 (draft-twine-ftpmd5).
//!
//! A file is read piece by piece through the hub, a few files at once for the whole door; the session hears ABOR meanwhile. What the
//! store knows already is not computed.

use std::ops::Range;
use std::sync::Arc;

use sha2::Digest as _;

use super::Door;
use super::argument::path_and_range;
use super::command::Ask;
use super::reply::{Reply, quoted};
use super::session::{Session, Turn, say};
use crate::error::{Error, Kind, Result};
use crate::hub::{Caller, Download, TreePath};

/// Bytes read, and hashed without a pause, at once.
const PIECE: usize = 64 << 10;

/// What can be computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// CRC-32 as in ZIP.
    Crc32,
    /// MD5: only to compare with what old clients compute.
    Md5,
    /// SHA-1: likewise.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// In the order FEAT tells them.
    const ALL: [Self; 5] = [Self::Sha256, Self::Sha512, Self::Sha1, Self::Md5, Self::Crc32];

    /// Its name in the IANA registry of hash functions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha512 => "SHA-512",
        }
    }

    /// The one with this name, with or without its hyphen.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        let plain = |text: &str| text.replace('-', "").to_ascii_uppercase();
        Self::ALL.into_iter().find(|algorithm| plain(algorithm.name()) == plain(text))
    }

    /// For FEAT: the chosen one carries a star.
    #[must_use]
    pub fn feature(self) -> String {
        let names: Vec<_> =
            Self::ALL.iter().map(|one| format!("{}{}", one.name(), if *one == self { "*" } else { "" })).collect();
        names.join(";")
    }
}

/// A checksum on its way.
enum Sum {
    Crc32(crc32fast::Hasher),
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Sum {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32 => Self::Crc32(crc32fast::Hasher::new()),
            Algorithm::Md5 => Self::Md5(md5::Md5::new()),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32(sum) => sum.update(bytes),
            Self::Md5(sum) => sum.update(bytes),
            Self::Sha1(sum) => sum.update(bytes),
            Self::Sha256(sum) => sum.update(bytes),
            Self::Sha512(sum) => sum.update(bytes),
        }
    }

    fn digits(self) -> String {
        match self {
            Self::Crc32(sum) => format!("{:08x}", sum.finalize()),
            Self::Md5(sum) => hex(&sum.finalize()),
            Self::Sha1(sum) => hex(&sum.finalize()),
            Self::Sha256(sum) => hex(&sum.finalize()),
            Self::Sha512(sum) => hex(&sum.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'));
    bytes.iter().flat_map(digits).collect()
}

/// What was asked, resolved.
struct Job {
    door: Arc<Door>,
    caller: Caller,
    path: TreePath,
    algorithm: Algorithm,
    from: u64,
    to: Option<u64>,
}

impl Job {
    /// The digits, and the range they are of.
    async fn run(self) -> Result<(String, Range<u64>)> {
        let file = self.caller.open(&self.path).await?;
        let size = file.node().size;
        let range = self.from..self.to.unwrap_or(size);
        if range.start > range.end || range.end > size {
            return Err(Error::new(Kind::Invalid, format!("the range is outside the file, which has {size} bytes")));
        }
        if self.algorithm == Algorithm::Sha256
            && range == (0..size)
            && let Some(known) = self.caller.known_sha256(&self.path).await?
        {
            return Ok((hex(&known), range));
        }
        let _turn = self.door.checksums.acquire().await.map_err(Error::internal)?;
        let digits = sum_of(&file, range.clone(), self.algorithm).await?;
        Ok((digits, range))
    }
}

/// Others have their turn between two pieces.
async fn sum_of(file: &Download, range: Range<u64>, algorithm: Algorithm) -> Result<String> {
    let (mut sum, mut at) = (Sum::new(algorithm), range.start);
    while at < range.end {
        let want = usize::try_from(range.end - at).map_or(PIECE, |left| left.min(PIECE));
        let piece = file.read_at(at, want).await?;
        if piece.is_empty() {
            return Err(Error::new(Kind::Conflict, "the file became shorter while it was read"));
        }
        sum.push(&piece);
        at += piece.len() as u64;
        tokio::task::yield_now().await;
    }
    Ok(sum.digits())
}

impl Session {
    pub(super) async fn checksum(&self, caller: &Caller, ask: Ask, argument: String) -> Result<Turn> {
        if self.door.settings.checksums == 0 {
            return Ok(say(502, "checksums are off here"));
        }
        let algorithm = match ask {
            Ask::Chosen => self.hash,
            Ask::Md5 => Algorithm::Md5,
            Ask::Plain(algorithm) => algorithm,
        };
        // A name may end like a range: what is there is asked first.
        let (name, (from, to)) = match self.is_there(caller, &argument).await {
            true => (argument, (0, None)),
            false => path_and_range(&argument).map_err(|_| Error::new(Kind::Invalid, "a path is needed"))?,
        };
        let path = self.resolve(caller, &name).await?;
        let job = Job { door: self.door.clone(), caller: caller.clone(), path: path.clone(), algorithm, from, to };
        let work = async move {
            let (digits, range) = job.run().await?;
            Ok(answer(ask, algorithm, &digits, &range, &name))
        };
        Ok(self.work(algorithm.name(), path, work))
    }
}

fn answer(ask: Ask, algorithm: Algorithm, digits: &str, range: &Range<u64>, name: &str) -> Reply {
    match ask {
        Ask::Chosen => Reply::new(213, format!("{} {}-{} {digits} {name}", algorithm.name(), range.start, range.end)),
        Ask::Md5 => Reply::new(251, format!("{} {}", quoted(name), digits.to_ascii_uppercase())),
        Ask::Plain(_) => Reply::new(250, digits.to_ascii_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_standards() {
        for (name, digits) in [
            ("crc32", "cbf43926"),
            ("MD5", "25f9e794323b453885f5181f1b624d0b"),
            ("SHA-1", "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            ("SHA256", "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ] {
            let mut sum = Sum::new(Algorithm::named(name).unwrap());
            sum.push(b"12345");
            sum.push(b"6789");
            assert_eq!(sum.digits(), digits, "{name}");
        }
        assert_eq!(Algorithm::named("SHA-3"), None);
        assert_eq!(Algorithm::Sha1.feature(), "SHA-256;SHA-512;SHA-1*;MD5;CRC32");
    }
}
