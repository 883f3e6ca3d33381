//! Writes bytes at a place in a file, and copies a range of one file into another.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::errors::failed;
use crate::error::{Error, Kind, Result};

/// Bytes copied at once where the kernel cannot copy by itself.
const COPY_BUFFER: usize = 256 << 10;

/// Writes all of it, or says why not.
pub(super) fn write_at(file: impl AsFd, mut bytes: &[u8], mut at: u64) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file.as_fd(), bytes, at) {
            Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Copies the first `len` bytes of `from` to `at` in `to`: shared extents where the file system has them, inside the
/// kernel where it can, through a buffer else.
pub(super) fn copy_range(from: &File, to: &File, at: u64, len: u64) -> Result<()> {
    let (mut read, mut write) = (0_u64, at);
    while read < len {
        let step = usize::try_from(len - read).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), step) {
            Ok(0) => return Err(shrunk()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOTSUP | Errno::NOSYS | Errno::PERM | Errno::IO | Errno::BADF) => {
                return copy_by_hand(from, to, read, write, len);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, mut read: u64, mut write: u64, len: u64) -> Result<()> {
    let mut buffer = vec![0; COPY_BUFFER];
    while read < len {
        let step = usize::try_from(len - read).unwrap_or(usize::MAX).min(buffer.len());
        let count = match rustix::io::pread(from, buffer.get_mut(..step).unwrap_or_default(), read) {
            Ok(0) => return Err(shrunk()),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(failed(error)),
        };
        write_at(to, buffer.get(..count).unwrap_or_default(), write)?;
        read += count as u64;
        write += count as u64;
    }
    Ok(())
}

fn shrunk() -> Error {
    Error::new(Kind::Conflict, "the file became shorter while it was copied")
}
