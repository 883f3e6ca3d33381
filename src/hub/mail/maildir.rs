//! Maildir names: what a file name says of its message, and the folders of Maildir++.
//!
//! `new/1700000000.M5P7_ID.host,S=3` becomes `cur/1700000000.M5P7_ID.host,S=3:2,RS` once it was seen: what stands before
//! the colon stays for life, behind it are the flags (<https://cr.yp.to/proto/maildir.html>).

use std::borrow::Cow;

use crate::error::{Error, Kind, Result};
use crate::hub::now;
use crate::store::{Micros, RelPath};

/// Where new messages are.
pub(super) const NEW: &str = "new";
/// Where messages are that a reader has noticed.
pub(super) const CUR: &str = "cur";
/// Folders every Maildir has.
pub(super) const FOLDERS: [&str; 3] = [CUR, NEW, "tmp"];
/// Longest name of a folder below a mailbox.
const LONGEST_FOLDER: usize = 200;
/// Letters of an id, or of a host's name, in a file name.
const LONGEST_PART: usize = 64;
/// What begins the flags; other meanings of what follows the colon were never used.
const FLAGS: &str = ":2,";
/// What stands before the size with CRLF line ends, in the names of other Maildir servers too.
const OCTETS: &str = ",W=";
/// What stands before our id of a message in its file's name: the number of the process.
const BEFORE_ID: char = '_';

/// The part of a file name that stays, and the flags in order.
pub(super) fn split(name: &str) -> (&str, String) {
    let Some((base, info)) = name.split_once(':') else { return (name, String::new()) };
    let flags = info.strip_prefix("2,").unwrap_or_default();
    let mut flags: Vec<char> = flags.chars().filter(char::is_ascii_alphabetic).collect();
    flags.sort_unstable();
    flags.dedup();
    (base, flags.into_iter().collect())
}

/// The file name in `cur` of a message with flags.
pub(super) fn with_flags(base: &str, flags: &str) -> String {
    let name = format!("{base}{FLAGS}{flags}");
    split(&name).1.chars().fold(format!("{base}{FLAGS}"), |mut name, flag| {
        name.push(flag);
        name
    })
}

/// The name of a file for a message that comes now, one that no other delivery has had; with its bytes and its octets on the wire.
pub(super) fn name(id: &str, host: &str, (size, octets): (u64, u64), arrived: Micros) -> String {
    let host = unambiguous(host);
    let (seconds, micros) = (arrived / 1_000_000, arrived % 1_000_000);
    let plain = id.len() <= LONGEST_PART && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let id: Cow<'_, str> = match plain {
        true => id.into(),
        false => id.chars().filter(char::is_ascii_alphanumeric).take(LONGEST_PART).collect(),
    };
    format!("{seconds}.M{micros}P{}{BEFORE_ID}{id}.{host},S={size}{OCTETS}{octets}", std::process::id())
}

/// A host's name as it stands in a file name: a slash or a colon would mean something else there.
fn unambiguous(host: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if host.len() <= LONGEST_PART && host.bytes().all(plain) {
        return host.into();
    }
    let host: String = host.chars().filter(|letter| !letter.is_control()).take(LONGEST_PART).collect();
    host.replace('/', "\\057").replace(':', "\\072").into()
}

/// The octets of the message on the wire, when the file name tells them.
pub(super) fn octets_of(name: &str) -> Option<u64> {
    let (_, rest) = split(name).0.split_once(OCTETS)?;
    rest.split(',').next()?.parse().ok()
}

/// Our id of the message in a file name, when we delivered it.
pub(super) fn id_of(name: &str) -> Option<&str> {
    let (_, rest) = name.split_once('.')?;
    let unique = rest.split(['.', ',', ':']).next()?;
    let (process, id) = unique.split_once(BEFORE_ID)?;
    let ours = process.starts_with('M') && id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    ours.then_some(id)
}

/// A folder of a mailbox as a path of its volume: the inbox is the Maildir itself, `.Sent` one inside it.
///
/// # Errors
/// `Invalid` when it is no name of a Maildir++ folder.
pub(super) fn folder_path(folder: &str) -> Result<RelPath> {
    if folder.is_empty() {
        return Ok(RelPath::root());
    }
    if !is_folder(folder) {
        return Err(Error::new(Kind::Invalid, "a mail folder's name begins with a dot: .Sent, .Lists.rust"));
    }
    RelPath::root().join(folder)
}

/// Is this the name of a Maildir++ folder? The store's own and the two dots are none.
pub(super) fn is_folder(name: &str) -> bool {
    name.len() > 1
        && name.len() <= LONGEST_FOLDER
        && name.starts_with('.')
        && !name.contains("..")
        && RelPath::root().join(name).is_ok()
}

/// A UIDVALIDITY no folder of this name had before: the seconds since 1970.
pub(super) fn validity() -> u32 {
    u32::try_from(now() / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_base_and_sorts_its_flags() {
        assert_eq!(split("1.a.host"), ("1.a.host", String::new()));
        assert_eq!(split("1.a.host:2,"), ("1.a.host", String::new()));
        assert_eq!(split("1.a.host:2,SRS"), ("1.a.host", "RS".into()));
        assert_eq!(split("1.a.host:1,x"), ("1.a.host", String::new()));
        assert_eq!(with_flags("1.a.host", "SF"), "1.a.host:2,FS");
    }

    #[test]
    fn our_own_names_tell_the_id_and_others_tell_nothing() {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let ours = name(&id, "mx/1:a.example.org", (12, 13), 1_700_000_000_000_005);
        assert!(
            ours.starts_with("1700000000.M5P") && ours.ends_with(".mx\\0571\\072a.example.org,S=12,W=13"),
            "{ours}"
        );
        assert_eq!(octets_of(&ours), Some(13));
        assert_eq!(octets_of("1.a.host,W=7,S=5:2,W"), Some(7));
        for other in ["1.a.host", "1.a.host,S=12", "1.a.host,W=", "1.a.host,W=x", "1.a.host:2,W=9"] {
            assert_eq!(octets_of(other), None, "{other}");
        }
        assert_eq!(id_of(&ours), Some(id.as_str()));
        assert_eq!(id_of(&with_flags(&ours, "S")), Some(id.as_str()));
        for other in ["", "1.2.3", "1700000000.M5P7_9.host,S=3", "1700000000.V801I1M2.host", "1.M1P2_.h"] {
            assert_eq!(id_of(other), None, "{other}");
        }
    }

    #[test]
    fn folders_are_dotted_names() {
        assert_eq!(folder_path("").unwrap(), RelPath::root());
        assert_eq!(folder_path(".Sent").unwrap().as_str(), ".Sent");
        for wrong in ["Sent", ".", "..", "..x", ".a/b", ".stoa-x", ".a..b"] {
            assert!(folder_path(wrong).is_err(), "{wrong}");
        }
    }
}
