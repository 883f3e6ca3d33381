//! Positioned reads: at once when the bytes are in memory, on the pool when the disk is needed.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags};

use crate::error::{Error, Result};

/// Reads up to `len` bytes: at once when they are in memory, on the pool when the disk is needed.
pub(super) async fn read_at(file: Arc<File>, offset: u64, len: usize) -> Result<Bytes> {
    let left = rustix::fs::fstat(&*file).map_err(std::io::Error::from)?.st_size.cast_unsigned().saturating_sub(offset);
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
    let mut buffer = BytesMut::zeroed(len);
    let have = match read_some(&file, &mut buffer, offset, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP) if in_memory(&file) => {
            read_some(&file, &mut buffer, offset, ReadWriteFlags::empty()).map_err(std::io::Error::from)?
        }
        outcome => outcome.unwrap_or(0),
    };
    if have == len {
        return Ok(buffer.freeze());
    }
    let work = move || {
        let rest = buffer.get_mut(have..).unwrap_or_default();
        let more = read_some(&file, rest, offset.saturating_add(have as u64), ReadWriteFlags::empty())
            .map_err(std::io::Error::from)?;
        buffer.truncate(have + more);
        Ok(buffer.freeze())
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|lost| Err(Error::internal(lost)))
}

/// A file system that is memory (tmpfs) never makes a reader wait, and does not know the question.
pub(super) fn in_memory(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == TMPFS)
}

/// statfs(2)
pub(super) const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Fills the buffer until the end of the file, or until the kernel would have to wait.
fn read_some(file: impl AsFd, buffer: &mut [u8], offset: u64, flags: ReadWriteFlags) -> rustix::io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match rustix::io::preadv2(&file, &mut [IoSliceMut::new(rest)], offset.saturating_add(have as u64), flags) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if have > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}
