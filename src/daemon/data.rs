//! The data folder: made private, locked by one daemon, and given the name its history chain carries.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// One `protocol address` a line, written when every listener is bound, removed at the end.
const LISTENERS: &str = "listeners";
/// The password of the first administrator, until it is removed.
const ADMIN_PASSWORD: &str = "admin-password";

/// Held for as long as the daemon runs; the system gives it back even after SIGKILL.
pub struct Lock {
    _file: File,
}

/// Makes the folder (0750) with its parents where it is missing.
///
/// # Errors
/// `Unavailable`, naming the folder.
pub fn prepare(data: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(data);
    made.map_err(|error| failed("the data folder cannot be made", data, error))
}

/// Makes the folders the daemon keeps in it.
///
/// # Errors
/// `Unavailable`, naming the folder.
pub fn lay(data: &Path) -> Result<()> {
    ["tree", "stage"].into_iter().try_for_each(|name| prepare(&data.join(name)))
}

/// Takes the folder for this process.
///
/// # Errors
/// `Unavailable` when another daemon has it, naming its pid.
pub fn lock(data: &Path) -> Result<Lock> {
    hold(data, "lock", "another stoa runs on this data folder", "stop it, or give this one its own `data`")
}

/// Waits for nobody: one command at a time moves mail, beside the daemon.
///
/// # Errors
/// `Unavailable` when another command does, naming its pid.
pub fn turn(data: &Path) -> Result<Lock> {
    hold(data, "mail.lock", "another `stoa mail` is at work on this data folder", "wait until it is done")
}

fn hold(data: &Path, name: &str, other: &str, remedy: &str) -> Result<Lock> {
    let path = data.join(name);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path);
    let mut file = open.map_err(|error| failed("the lock of the data folder cannot be opened", &path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).take(32).read_to_string(&mut pid);
            return Err(Error::new(
                Kind::Unavailable,
                format!("{other} (pid {}): {}; {remedy}", pid.trim(), data.display()),
            ));
        }
        Err(TryLockError::Error(error)) => return Err(failed("the data folder cannot be locked", &path, error)),
    }
    let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map_err(|error| failed("cannot be written", &path, error))?;
    Ok(Lock { _file: file })
}

/// The name of this data folder among all that share a catalog: made once from the machine's name, then kept.
///
/// # Errors
/// `Unavailable`, naming the file.
pub fn node(data: &Path) -> Result<String> {
    let path = data.join("node");
    for _ in 0..2 {
        match std::fs::read_to_string(&path) {
            Ok(name) if is_node(name.trim()) => return Ok(name.trim().to_owned()),
            Ok(_) => {
                let what = format!("{} does not hold a node's name; restore it from a backup", path.display());
                return Err(Error::new(Kind::Corrupt, what));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_node(data, &path)?,
            Err(error) => return Err(failed("cannot be read", &path, error)),
        }
    }
    Err(Error::new(Kind::Unavailable, format!("{} cannot be made", path.display())))
}

/// Written aside and linked, so that two processes starting at once agree on one name.
fn make_node(data: &Path, path: &Path) -> Result<()> {
    let machine = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let machine: String = machine.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random).map_err(|error| Error::internal(format!("no random numbers: {error}")))?;
    let name = format!("{machine}-{:08x}", u32::from_le_bytes(random));
    let aside = data.join(format!("node.{}", std::process::id()));
    private(&aside, name.as_bytes())?;
    let linked = std::fs::hard_link(&aside, path);
    let _ = std::fs::remove_file(&aside);
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed("cannot be made", path, error)),
        _ => Ok(()),
    }
}

fn is_node(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Says which addresses are bound.
///
/// # Errors
/// `Unavailable`, naming the file.
pub fn write_listeners(data: &Path, listeners: &[(String, String)]) -> Result<()> {
    let lines: Vec<_> = listeners.iter().map(|(protocol, address)| format!("{protocol} {address}")).collect();
    let text = lines.join("\n") + "\n";
    let (path, aside) = (data.join(LISTENERS), data.join("listeners.new"));
    let _ = std::fs::remove_file(&aside);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&aside);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    let written = written.and_then(|()| std::fs::rename(&aside, &path));
    written.map_err(|error| failed("cannot be written", &path, error))
}

/// Nothing is bound any more, or not yet.
pub fn clear_listeners(data: &Path) {
    let _ = std::fs::remove_file(data.join(LISTENERS));
}

/// Where the first administrator's password is kept.
#[must_use]
pub fn admin_password(data: &Path) -> PathBuf {
    data.join(ADMIN_PASSWORD)
}

/// Writes a file that only the owner may read; it must not be there yet.
///
/// # Errors
/// `Exists`, or `Unavailable` naming the file.
pub fn private(path: &Path, content: &[u8]) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let made = made.and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    made.map_err(|error| failed("cannot be made", path, error))
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::AlreadyExists => Kind::Exists,
        std::io::ErrorKind::PermissionDenied => Kind::Denied,
        std::io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::Unavailable,
    };
    Error::new(kind, format!("{}: {what}", path.display())).with(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        let refused = lock(folder.path()).err().unwrap().to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(first);
        lock(folder.path()).unwrap();
    }

    #[test]
    fn a_node_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let name = node(folder.path()).unwrap();
        assert_eq!(node(folder.path()).unwrap(), name);
        std::fs::write(folder.path().join("node"), "../x").unwrap();
        assert_eq!(node(folder.path()).unwrap_err().kind(), Kind::Corrupt);
    }
}
