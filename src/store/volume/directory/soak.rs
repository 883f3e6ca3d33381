//! Soaking: from a socket into a stage inside the kernel, in bursts on the pool's threads.
//!
//! One hop to the pool moves as much as comes while its burst lasts, not one chunk. Each thread keeps one pipe, which is empty between
//! bursts: the number of pipes is bounded by that of threads, and an upload needs none of its own.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::errors::failed;
use super::write::write_at;
use crate::error::{Error, Result};
use crate::store::{Soaked, Then};

/// Room asked for a pipe; the kernel may grant less.
const ROOM: usize = 1 << 20;
/// A burst ends after so many bytes…
const BURST: u64 = 64 << 20;
/// … or so long: others wait for the thread.
const TURN: Duration = Duration::from_millis(100);
/// How long a burst waits for a peer that is a little slower than we are.
const PATIENCE: Duration = Duration::from_millis(2);
/// Bursts at once; beyond them uploads are read and written piece by piece, so that other work of the pool never waits long.
const BURSTS: usize = 16;
/// Read at once where the kernel cannot splice into this kind of file.
const COPY: usize = 64 << 10;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PIPE: RefCell<Option<Pipe>> = const { RefCell::new(None) };
}

struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

/// The right to one burst; given back on drop.
pub(super) struct Place(());

impl Place {
    /// `None` while too many bursts run.
    pub(super) fn take() -> Option<Self> {
        let next = |running: usize| (running < BURSTS).then_some(running + 1);
        RUNNING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(|_| Self(()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One burst. An error is the disk's; bytes before it may be in the file past `at`.
pub(super) fn soak(from: &OwnedFd, file: &File, at: u64, most: u64, _place: &Place) -> Result<Soaked> {
    PIPE.with_borrow_mut(|kept| {
        let pipe = match kept.take() {
            Some(pipe) => pipe,
            None => Pipe::new().map_err(failed)?,
        };
        let soaked = pipe.burst(from, file, at, most);
        // After a failure something may be left in it: the next burst makes a new one.
        if soaked.is_ok() {
            *kept = Some(pipe);
        }
        soaked
    })
}

impl Pipe {
    fn new() -> rustix::io::Result<Self> {
        let (out, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user may hold so many large pipes only; the room it has anyway will do.
        let _ = rustix::pipe::fcntl_setpipe_size(&into, ROOM);
        Ok(Self { out, into })
    }

    fn burst(&self, from: &OwnedFd, file: &File, at: u64, most: u64) -> Result<Soaked> {
        let begun = Instant::now();
        let mut bytes = 0;
        let then = loop {
            if bytes >= most.min(BURST) || begun.elapsed() >= TURN {
                break Then::More;
            }
            let room = usize::try_from(most - bytes).unwrap_or(ROOM).min(ROOM);
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            match rustix::pipe::splice(from, None, &self.into, None, room, flags) {
                Ok(0) => break Then::End,
                Ok(gulp) => {
                    self.pour(file, at + bytes, gulp)?;
                    bytes += gulp as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if more_comes(from) => {}
                Err(Errno::AGAIN) => break Then::Dry,
                Err(error) => break Then::Broken(error.into()),
            }
        };
        Ok(Soaked { bytes, then })
    }

    /// Empties the pipe into the file.
    fn pour(&self, file: &File, at: u64, gulp: usize) -> Result<()> {
        let (mut offset, end) = (at, at + gulp as u64);
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(ROOM);
            match rustix::pipe::splice(&self.out, None, file, Some(&mut offset), left, SpliceFlags::MOVE) {
                Ok(0) => return Err(Error::internal("a pipe held less than was put into it")),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::INVAL) => return self.copy(file, offset, end),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// For file systems that cannot splice.
    fn copy(&self, file: &File, mut at: u64, end: u64) -> Result<()> {
        let mut buffer = vec![0; COPY];
        while at < end {
            let room = usize::try_from(end - at).unwrap_or(COPY).min(COPY);
            let read = rustix::io::read(&self.out, buffer.get_mut(..room).unwrap_or_default()).map_err(failed)?;
            write_at(file, buffer.get(..read).unwrap_or_default(), at)?;
            at += read as u64;
        }
        Ok(())
    }
}

/// Waits a little; a hang-up counts, for it must be read.
fn more_comes(from: &OwnedFd) -> bool {
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
    let mut asked = [PollFd::new(from, PollFlags::IN)];
    poll(&mut asked, Some(&patience)).is_ok_and(|ready| ready > 0)
}
