//! A folder, or what was chosen of it, as one zip or tar file: made while it is sent, in memory of a few pages.
//!
//! Only what the asker may read is in it. What goes wrong half way (a file vanishes, changes or cannot be read) cuts the connection
//! before the archive's end, so that nobody takes a part for the whole.

mod tar;
mod walk;
mod zip;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::{Method, header};

use crate::error::{Error, Kind};
use crate::hub::{Download, TreePath};
use crate::proto::http::body::{Flow, Outgoing};
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::save_as;
use crate::proto::http::visit::Visit;
use walk::{Found, Walk};

/// Bytes of a file read at once.
const FRAME: usize = 256 << 10;

/// The forms an archive can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Tar,
    Zip,
}

impl Form {
    /// By its word in a query or a form.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "tar" => Some(Self::Tar),
            "zip" => Some(Self::Zip),
            _ => None,
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Zip => "zip",
        }
    }
}

/// Answers a request for a folder's archive; of the names in it, or of all when there are none.
///
/// # Errors
/// Those of the hub; 404 for a name that is not there.
pub async fn send(visit: &Visit<'_>, folder: &TreePath, form: Form, names: &[&str]) -> Answer {
    let name = if folder.is_root() { "files" } else { folder.name() };
    let walk = match names {
        [] => Walk::of_folder(&visit.caller, folder, name).await?,
        names => {
            // An archive that holds a name twice cannot be unpacked without questions.
            let paths: BTreeSet<_> = names.iter().map(|name| folder.join(name)).collect::<Result<_, _>>()?;
            let mut chosen = Vec::with_capacity(paths.len());
            for path in &paths {
                chosen.push(visit.caller.stat(path).await?);
            }
            Walk::of_chosen(&visit.caller, chosen, name)
        }
    };
    let packer = match form {
        Form::Tar => Packer::Tar(tar::Writer::default()),
        Form::Zip => Packer::Zip(Box::default()),
    };
    let flow = Archive { walk, packer, open: None, ended: false };
    let body = if visit.parts.method == Method::HEAD { Outgoing::empty() } else { Outgoing::flow(flow, None) };
    let kind = match form {
        Form::Tar => "application/x-tar",
        Form::Zip => "application/zip",
    };
    let mut response = reply::typed(body, kind);
    let file = format!("{name}.{}", form.ending());
    reply::set(&mut response, header::CONTENT_DISPOSITION, &save_as::attachment(&file));
    Ok(response)
}

/// The form a query asks for.
///
/// # Errors
/// 400 for another word.
pub fn asked(visit: &Visit<'_>) -> Result<Option<Form>, Refusal> {
    let Some(word) = visit.query("archive") else { return Ok(None) };
    Form::of(&word).map(Some).ok_or_else(|| Refusal::bad("?archive is zip or tar"))
}

enum Packer {
    Tar(tar::Writer),
    Zip(Box<zip::Writer>),
}

/// A file on its way into the archive, as it was when it was opened.
struct Open {
    download: Download,
    left: Range<u64>,
}

struct Archive {
    walk: Walk,
    packer: Packer,
    open: Option<Open>,
    ended: bool,
}

#[async_trait]
impl Flow for Archive {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let outcome = self.step().await;
        if let Err(error) = &outcome {
            tracing::warn!(error = error.detail(), "an archive was cut off");
        }
        outcome.map_err(io::Error::other)
    }
}

impl Archive {
    async fn step(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(open) = &mut self.open {
            if open.left.is_empty() {
                unchanged(&open.download)?;
                self.open = None;
                return self.packer.after().map(Some);
            }
            let piece = open.read().await?;
            return Ok(Some(self.packer.take(piece)));
        }
        if self.ended {
            return Ok(None);
        }
        match self.walk.next().await? {
            Some(Found::Folder { name, modified }) => self.packer.folder(&name, modified).map(Some),
            Some(Found::File { name, download }) => {
                let node = download.node();
                let head = self.packer.file(&name, node.size, node.modified)?;
                self.open = Some(Open { left: 0..node.size, download });
                Ok(Some(head))
            }
            None => {
                self.ended = true;
                Ok(Some(self.packer.end()))
            }
        }
    }
}

impl Open {
    async fn read(&mut self) -> Result<Bytes, Error> {
        let left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX).min(FRAME);
        let piece = self.download.read_at(self.left.start, left).await?;
        if piece.is_empty() {
            return Err(Error::new(Kind::Conflict, "a file became shorter while it was packed"));
        }
        self.left.start += piece.len() as u64;
        Ok(piece)
    }
}

/// A file that another program wrote into meanwhile may be neither what it was nor what it is.
fn unchanged(download: &Download) -> Result<(), Error> {
    match download.is_unchanged() {
        true => Ok(()),
        false => Err(Error::new(Kind::Conflict, "a file was changed while it was packed")),
    }
}

impl Packer {
    fn folder(&mut self, name: &str, modified: i64) -> Result<Bytes, Error> {
        match self {
            Self::Tar(writer) => Ok(writer.folder(name, modified)),
            Self::Zip(writer) => writer.folder(name, modified),
        }
    }

    fn file(&mut self, name: &str, size: u64, modified: i64) -> Result<Bytes, Error> {
        match self {
            Self::Tar(writer) => Ok(writer.file(name, size, modified)),
            Self::Zip(writer) => writer.file(name, size, modified),
        }
    }

    /// A piece of a file as it is in the archive.
    fn take(&mut self, piece: Bytes) -> Bytes {
        match self {
            Self::Tar(_) => piece,
            Self::Zip(writer) => writer.take(&piece),
        }
    }

    /// What follows a file's bytes.
    fn after(&mut self) -> Result<Bytes, Error> {
        match self {
            Self::Tar(writer) => Ok(writer.after()),
            Self::Zip(writer) => writer.after(),
        }
    }

    fn end(&mut self) -> Bytes {
        match self {
            Self::Tar(_) => tar::end(),
            Self::Zip(writer) => writer.end(),
        }
    }
}

/// A name as every unpacker takes it for one: a backslash, which Windows reads as a slash, is written `%5C`. Two names stay two: a `%` that
/// would then read so is written `%25`. (Names hold no control characters.)
fn plain(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, letter) in name.char_indices() {
        let behind = name.get(at + 1..).unwrap_or_default();
        match letter {
            '\\' => text.push_str("%5C"),
            '%' if behind.starts_with("5C") || behind.starts_with("25") => text.push_str("%25"),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_no_backslash_and_two_names_stay_two() {
        let names =
            ["a\\..\\b", "a%5C..\\b", "a%5C..%5Cb", "a%255C..\\b", "\u{e9}\\", "100%", "a%20b", "%2", "%25", "%"];
        let plain: Vec<String> = names.iter().map(|name| plain(name)).collect();
        assert_eq!(plain[0], "a%5C..%5Cb");
        assert_eq!(plain[5..8], ["100%", "a%20b", "%2"]);
        assert!(plain.iter().all(|name| !name.contains('\\')));
        assert_eq!(plain.iter().collect::<std::collections::HashSet<_>>().len(), names.len());
    }
}
