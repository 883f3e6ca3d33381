//! Listings: `ls -l` exactly as Unix prints it, RFC 3659 facts, bare names; streamed page by page.

use std::fmt::Write as _;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::command::Style;
use super::glob::matches;
use crate::error::Result;
use crate::hub::{Entry, Listing, Micros, NodeKind, Verb, now};
use crate::proto::dialogue::Feed;

/// After about six months `ls` shows the year instead of the time.
const RECENT: Micros = 182 * 86_400 * 1_000_000;

/// The facts MLSD can show, in the order they are shown.
pub const FACTS: [&str; 8] =
    ["type", "size", "modify", "perm", "unique", "UNIX.mode", "UNIX.ownername", "UNIX.groupname"];

/// Which facts a session shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts([bool; FACTS.len()]);

impl Default for Facts {
    fn default() -> Self {
        Self([true; FACTS.len()])
    }
}

impl Facts {
    /// RFC 3659 §7.9: exactly the known ones among those asked for.
    #[must_use]
    pub fn chosen(text: &str) -> Self {
        Self(FACTS.map(|fact| text.split(';').any(|asked| asked.trim().eq_ignore_ascii_case(fact))))
    }

    /// For FEAT: those shown carry a star.
    #[must_use]
    pub fn feature(self) -> String {
        FACTS.iter().zip(self.0).flat_map(|(fact, on)| [*fact, if on { "*;" } else { ";" }]).collect()
    }

    /// For the reply to OPTS MLST.
    #[must_use]
    pub fn shown(self) -> String {
        FACTS.iter().zip(self.0).filter(|(_, on)| *on).flat_map(|(fact, _)| [*fact, ";"]).collect()
    }

    /// The facts of an entry, each with its `;`.
    #[must_use]
    pub fn of(self, entry: &Entry, owner: &str) -> String {
        let mut text = String::new();
        for (fact, _) in FACTS.iter().zip(self.0).filter(|(_, on)| *on) {
            let value = match *fact {
                "type" if entry.node.kind == NodeKind::Folder => "dir".into(),
                "type" => "file".into(),
                "size" if entry.node.kind == NodeKind::Folder => continue,
                "size" => entry.node.size.to_string(),
                "modify" => stamp(entry.node.modified),
                "perm" => permissions(entry),
                "unique" => format!("{:x}", entry.node.tag),
                "UNIX.mode" => format!("{:04o}", mode(entry)),
                "UNIX.ownername" => owner.to_owned(),
                _ => GROUP.to_owned(),
            };
            let _ = write!(text, "{fact}={value};");
        }
        text
    }
}

/// The group every file is shown with.
const GROUP: &str = "stoa";

/// `yyyymmddhhmmss` in UTC.
#[must_use]
pub fn stamp(at: Micros) -> String {
    civil(at).strftime("%Y%m%d%H%M%S").to_string()
}

fn civil(at: Micros) -> jiff::civil::DateTime {
    Timestamp::from_microsecond(at).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC).datetime()
}

/// RFC 3659 §7.5.5, from what this caller may really do.
fn permissions(entry: &Entry) -> String {
    let table: &[(char, Verb)] = match entry.node.kind {
        NodeKind::Folder => &[
            ('c', Verb::Create),
            ('d', Verb::Delete),
            ('e', Verb::List),
            ('f', Verb::Rename),
            ('l', Verb::List),
            ('m', Verb::Create),
            ('p', Verb::Delete),
        ],
        NodeKind::Special => &[('d', Verb::Delete), ('f', Verb::Rename)],
        NodeKind::File => {
            &[('a', Verb::Append), ('d', Verb::Delete), ('f', Verb::Rename), ('r', Verb::Read), ('w', Verb::Overwrite)]
        }
    };
    table.iter().filter(|(_, verb)| entry.rights.has(*verb)).map(|(letter, _)| letter).collect()
}

fn mode(entry: &Entry) -> u32 {
    let bit = |verb, bits| if entry.rights.has(verb) { bits } else { 0 };
    match entry.node.kind {
        NodeKind::File => bit(Verb::Read, 0o444) | bit(Verb::Overwrite, 0o200),
        NodeKind::Folder => bit(Verb::List, 0o555) | bit(Verb::Create, 0o311),
        NodeKind::Special => 0,
    }
}

/// One line of `ls -l`, without its end.
#[must_use]
pub fn long(entry: &Entry, name: &str, owner: &str, today: Micros) -> String {
    let folder = entry.node.kind == NodeKind::Folder;
    let mode = mode(entry);
    let bits: String = (0..9)
        .map(|at| {
            let letter = ["r", "w", "x"].get(at % 3).copied().unwrap_or("-");
            if mode & (0o400 >> at) == 0 { "-" } else { letter }
        })
        .collect();
    let recent = entry.node.modified <= today && entry.node.modified > today - RECENT;
    let when = civil(entry.node.modified).strftime(if recent { "%b %d %H:%M" } else { "%b %d  %Y" });
    let (kind, links) = if folder { ('d', 2) } else { ('-', 1) };
    let size = entry.node.size;
    format!("{kind}{bits} {links:>3} {owner:<8} {GROUP:<8} {size:>12} {when} {name}")
}

/// How one listing looks.
#[derive(Clone)]
pub struct Look {
    /// Which form.
    pub style: Style,
    /// Which facts, for MLSD.
    pub facts: Facts,
    /// Shown as the owner.
    pub owner: String,
    /// Put before each name (NLST of a folder named in the command keeps it).
    pub prefix: String,
    /// Only names that match; a pattern of `*` and `?`.
    pub pattern: Option<String>,
}

impl Look {
    /// Appends an entry's line.
    pub fn line(&self, entry: &Entry, name: &str, into: &mut String) {
        if self.pattern.as_ref().is_some_and(|pattern| !matches(pattern.as_bytes(), name.as_bytes())) {
            return;
        }
        let _ = match self.style {
            Style::Long => write!(into, "{}\r\n", long(entry, name, &self.owner, now())),
            Style::Machine => write!(into, "{} {name}\r\n", self.facts.of(entry, &self.owner)),
            Style::Names => write!(into, "{}{name}\r\n", self.prefix),
        };
    }
}

/// A folder's lines, a page at a time.
pub struct Lines {
    /// Where they come from.
    pub listing: Listing,
    /// How they look.
    pub look: Look,
}

#[async_trait]
impl Feed for Lines {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let page = self.listing.next_page().await?;
        if page.is_empty() {
            return Ok(None);
        }
        let mut text = String::with_capacity(page.len() * 96);
        for entry in &page {
            self.look.line(entry, &entry.node.name, &mut text);
        }
        Ok(Some(text.into()))
    }
}

/// Lines known already: the listing of a single file.
pub struct Once(pub Option<Bytes>);

#[async_trait]
impl Feed for Once {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Node, TreePath, Verbs};

    const NOON: Micros = 1_751_544_000_000_000; // 2025-07-03 12:00:00 UTC

    fn entry(kind: NodeKind, rights: Verbs, modified: Micros) -> Entry {
        let path = TreePath::parse("/a").unwrap();
        Entry { path, node: Node { name: "a".into(), kind, size: 1234, modified, tag: 0xbeef }, rights }
    }

    #[test]
    fn a_long_line_is_what_ls_prints() {
        let file = entry(NodeKind::File, Verbs::EDIT, NOON - 60_000_000);
        assert_eq!(
            long(&file, "a b.txt", "alice", NOON),
            "-rw-r--r--   1 alice    stoa             1234 Jul 03 11:59 a b.txt"
        );
        let folder = entry(NodeKind::Folder, Verbs::VIEW, NOON - RECENT);
        assert_eq!(long(&folder, "a", "alice", NOON), "dr-xr-xr-x   2 alice    stoa             1234 Jan 02  2025 a");
        let future = entry(NodeKind::File, Verbs::VIEW, NOON + 1);
        assert!(long(&future, "a", "alice", NOON).contains("Jul 03  2025"));
    }

    #[test]
    fn facts_tell_what_may_really_be_done() {
        let drop = entry(NodeKind::Folder, Verbs::DROP, NOON);
        assert_eq!(
            Facts::default().of(&drop, "x"),
            "type=dir;modify=20250703120000;perm=cm;unique=beef;UNIX.mode=0311;UNIX.ownername=x;UNIX.groupname=stoa;"
        );
        assert_eq!(Facts::chosen("SIZE;type;nonsense").shown(), "type;size;");
    }
}
