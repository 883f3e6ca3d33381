//! Errors of the kernel as ours.

use rustix::io::Errno;

use crate::error::{Error, Kind};

/// The kernel's word for an operation of ours, not for a lookup.
pub(super) fn failed(errno: Errno) -> Error {
    std::io::Error::from(errno).into()
}

/// What a failed lookup means: behind a link, a socket or a device nothing is there.
pub(super) fn refused(errno: Errno) -> Error {
    match errno {
        Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::NODEV => hidden().with(std::io::Error::from(errno)),
        _ => std::io::Error::from(errno).into(),
    }
}

pub(super) fn hidden() -> Error {
    Error::new(Kind::NotFound, "no such file or folder")
}

/// A link, a FIFO, a socket or a device has no content here.
pub(super) fn special() -> Error {
    Error::new(Kind::WrongType, "is a link or a special file on the server's disk; it is never followed or opened")
}

/// Something of the wrong sort is where a folder or a file should go.
pub(super) fn misplaced(errno: Errno) -> Error {
    let text = match errno {
        Errno::NOTDIR | Errno::LOOP | Errno::XDEV => "a file or a link is where a folder was meant",
        Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => "a folder is where a file was meant",
        // The folder went while something was put into it, or the space's own folder is gone.
        Errno::NOENT => {
            let text = "the folder was removed at this moment; try again";
            return Error::new(Kind::Unavailable, text).with(std::io::Error::from(errno));
        }
        _ => return failed(errno),
    };
    Error::new(Kind::WrongType, text).with(std::io::Error::from(errno))
}
