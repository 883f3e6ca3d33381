//! The data folder: made private, locked by one daemon, and given the name its history chain carries.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::store::EngineKind;

/// One `protocol address` a line, written when every listener is bound, removed at the end.
const LISTENERS: &str = "listeners";
/// Held by the daemon; its first line is its pid, the second its configuration file.
const LOCK: &str = "lock";
/// The answer to the last reload.
const RELOADED: &str = "reloaded";
/// The embedded catalog.
const CATALOG: &str = "catalog.db";
/// The password of the first administrator, until it is removed.
const ADMIN_PASSWORD: &str = "admin-password";

/// Held for as long as the daemon runs; the system gives it back even after SIGKILL.
pub struct Lock {
    file: File,
}

/// Makes the folder (0750) with its parents where it is missing.
///
/// # Errors
/// `Unavailable`, naming the folder.
pub fn prepare(data: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(data);
    made.map_err(|error| failed("the data folder cannot be made", data, error))?;
    close_to_others(data)
}

/// A folder that was there before us may be open to every account of the machine.
fn close_to_others(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(folder).map_err(|error| failed("cannot be read", folder, error))?.permissions().mode();
    let private = mode & 0o7750;
    if mode & 0o7777 == private {
        return Ok(());
    }
    match std::fs::set_permissions(folder, std::fs::Permissions::from_mode(private)) {
        Ok(()) => tracing::info!(folder = %folder.display(), "closed to other accounts of this machine"),
        Err(error) => tracing::warn!(folder = %folder.display(), "is open to other accounts of this machine: {error}"),
    }
    Ok(())
}

/// Makes the folders the daemon keeps in it.
///
/// # Errors
/// `Unavailable`, naming the folder.
pub fn lay(data: &Path) -> Result<()> {
    ["tree", "stage"].into_iter().try_for_each(|name| prepare(&data.join(name)))
}

/// Takes the folder for this process, which runs with this configuration file.
///
/// # Errors
/// `Unavailable` when another daemon has it, naming its pid.
pub fn lock(data: &Path, file: Option<&Path>) -> Result<Lock> {
    let lock = hold(data, LOCK, "another stoa runs on this data folder", "stop it, or give this one its own `data`")?;
    if let Some(file) = file.and_then(|file| file.canonicalize().ok()) {
        // Only for words: without it the daemon is known by its pid alone.
        let _ = writeln!(&lock.file, "{}", file.display());
    }
    // What an earlier daemon noted may have been longer.
    let _ = (&lock.file).stream_position().and_then(|end| lock.file.set_len(end));
    Ok(lock)
}

/// The daemon that runs on a data folder.
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its configuration file; `None`: the default one or none.
    file: Option<PathBuf>,
}

impl Holder {
    /// Was it started with this file?
    #[must_use]
    pub fn is_of(&self, file: Option<&Path>) -> bool {
        let file = file.and_then(|file| file.canonicalize().ok());
        self.file.is_none() || file.is_none() || self.file == file
    }

    /// Its configuration as people call it.
    #[must_use]
    pub fn name(&self) -> String {
        self.file.as_deref().map_or_else(|| "without a file".to_owned(), |file| file.display().to_string())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `Denied` where it belongs to another account.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        let sent = pid.map_or(Err(rustix::io::Errno::SRCH), |pid| rustix::process::kill_process(pid, signal));
        sent.map_err(|error| {
            let text =
                format!("the daemon (pid {}) cannot be told: {error}; run this as its account or as root", self.pid);
            Error::new(Kind::Denied, text)
        })
    }
}

/// Who holds a data folder now.
#[must_use]
pub fn holder(data: &Path) -> Option<Holder> {
    let mut file = File::open(data.join(LOCK)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    (&mut file).take(8192).read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    Some(Holder { pid, file: lines.next().map(PathBuf::from) })
}

/// The answer to the last reload: when it began, and what was wrong.
#[must_use]
pub fn answer(data: &Path) -> Option<(i64, String)> {
    let text = std::fs::read_to_string(data.join(RELOADED)).ok()?;
    let (began, words) = text.split_once('\n')?;
    Some((began.parse().ok()?, words.to_owned()))
}

/// Leaves the answer to a reload.
///
/// # Errors
/// `Unavailable`, naming the file.
pub fn write_answer(data: &Path, began: i64, lines: &[String]) -> Result<()> {
    write_whole(&data.join(RELOADED), &format!("{began}\n{}", lines.join("\n")))
}

/// Names this data folder, once there is nothing in the way: files and records that belong to a catalog that is missing are not begun anew.
///
/// # Errors
/// `Corrupt`, with the ways out.
pub fn open_node(data: &Path, engine: EngineKind) -> Result<String> {
    if engine == EngineKind::Sqlite {
        refuse_orphans(data)?;
    }
    node(data)
}

/// Sets the catalog and its logs aside, so that a new one is begun over the tree. Gives the files' new names.
///
/// # Errors
/// `Unavailable`, naming the file.
pub fn set_catalog_aside(data: &Path) -> Result<Vec<PathBuf>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut moved = Vec::new();
    for name in [CATALOG, "catalog.db-wal", "catalog.db-shm", "catalog.redo"] {
        let (from, to) = (data.join(name), data.join(format!("{name}.aside-{now}")));
        match std::fs::rename(&from, &to) {
            Ok(()) => moved.push(to),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("cannot be set aside", &from, error)),
        }
    }
    Ok(moved)
}

/// What is left of a store whose catalog is missing.
///
/// # Errors
/// `Corrupt`, with the ways out.
pub fn refuse_orphans(data: &Path) -> Result<()> {
    let has_content = |name: &str| std::fs::metadata(data.join(name)).is_ok_and(|there| there.len() > 0);
    if has_content(CATALOG) {
        return Ok(());
    }
    let tree = data.join("tree");
    let has_files = || std::fs::read_dir(&tree).is_ok_and(|mut entries| entries.next().is_some());
    let left: Vec<&str> = [
        ("the files in tree/", has_files()),
        // A first start that was cut short leaves a node and nothing else.
        ("the name of its node", data.join("node").exists() && data.join(ADMIN_PASSWORD).exists()),
        ("catalog.redo", has_content("catalog.redo")),
        ("catalog.db-wal", has_content("catalog.db-wal")),
    ]
    .into_iter()
    .filter_map(|(what, is_there)| is_there.then_some(what))
    .collect();
    if left.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{}: the catalog is missing or empty, but {} are there: accounts, grants, spaces and quotas made by command would be lost. \
         Restore {CATALOG} with its -wal and catalog.redo from one backup, or run `stoa verify --adopt` to begin anew over the tree on purpose",
        data.join(CATALOG).display(),
        left.join(", ")
    );
    Err(Error::new(Kind::Corrupt, text))
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
            let mut text = String::new();
            let _ = (&file).take(32).read_to_string(&mut text);
            let pid = text.lines().next().unwrap_or_default().trim();
            return Err(Error::new(Kind::Unavailable, format!("{other} (pid {pid}): {}; {remedy}", data.display())));
        }
        Err(TryLockError::Error(error)) => return Err(failed("the data folder cannot be locked", &path, error)),
    }
    // Over the old one and of the same length: that needs no room on a full disk.
    let noted = file.rewind().and_then(|()| writeln!(file, "{:<10}", std::process::id()));
    if let Err(error) = noted {
        tracing::warn!(path = %path.display(), %error, "the pid of the daemon is not noted in its lock file");
    }
    Ok(Lock { file })
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
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed("cannot be made", path, error)),
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
    write_whole(&data.join(LISTENERS), &(lines.join("\n") + "\n"))
}

/// Replaces a file by its whole new content.
fn write_whole(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension("new");
    let _ = std::fs::remove_file(&aside);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&aside);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    let written = written.and_then(|()| std::fs::rename(&aside, path));
    match written {
        // A full disk must not keep the daemon from starting: only through it can people delete something.
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            let _ = std::fs::remove_file(&aside);
            tracing::warn!(path = %path.display(), %error, "a note of the daemon's could not be written");
            Ok(())
        }
        written => written.map_err(|error| failed("cannot be written", path, error)),
    }
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
        ErrorKind::AlreadyExists => Kind::Exists,
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
        let first = lock(folder.path(), None).unwrap();
        let refused = lock(folder.path(), None).err().unwrap().to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(first);
        lock(folder.path(), None).unwrap();
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
