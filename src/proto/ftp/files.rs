//! Commands on paths: folders, names, times, listings.

use std::time::Instant;

use unicode_normalization::UnicodeNormalization;

use super::argument::{dated, without_flags};
use super::command::{Command, Style};
use super::data::Way;
use super::glob::is_pattern;
use super::listing::{Lines, Look, Once, stamp};
use super::page::InPage;
use super::reply::{Reply, quoted};
use super::session::{Running, Session, Turn, log_fault, say};
use crate::error::{Error, Kind, Result};
use crate::hub::files::{MakeFolder, RemoveFile, RemoveFolder, Rename, SetModified, Taken};
use crate::hub::{Caller, Entry, Listing, NodeKind, TreePath, Verb};
use crate::proto::dialogue::{Framing, Lane, Source};

impl Session {
    /// Commands on paths that need no data connection.
    pub(super) async fn browse(&mut self, caller: &Caller, command: Command) -> Result<Turn> {
        Ok(match command {
            Command::Cdup => self.enter(caller, "..").await?,
            Command::Cwd(name) => self.enter(caller, &name).await?,
            Command::Dele(name) => self.remove_file(caller, &name).await?,
            Command::Mdtm(name) => self.modified(caller, &name).await?,
            Command::Mfmt(modified, name, told) => self.touch(caller, modified, &name, told).await?,
            Command::Mkd(name) => self.make_folder(caller, &name).await?,
            Command::Mlst(name) => {
                let entry = self.look_at(caller, name.as_deref().unwrap_or(".")).await?;
                let path = Self::shown(caller, &entry.path);
                let facts = self.facts.of(&entry, owner(caller));
                Turn::Say(Reply::many(250, format!("Listing {path}"), vec![format!("{facts} {path}")], "End"))
            }
            Command::Pwd => say(257, format!("{} is the current folder", quoted(&Self::shown(caller, &self.cwd)))),
            Command::Rmd(name) => self.remove_folder(caller, &name).await?,
            Command::Rnfr(name) => {
                let path = self.resolve(caller, &name).await?;
                let rights = caller.seeming_rights(&path);
                let sees = rights.has(Verb::List) || rights.has(Verb::Read);
                match caller.allow(Verb::Rename, &path) {
                    Err(error) if error.kind() == Kind::NotFound && rights.has(Verb::Rename) && !sees => {}
                    allowed => allowed?,
                }
                // Who may rename but not look learns at RNTO whether it is there, as at the other doors.
                if sees {
                    caller.stat(&path).await?;
                }
                self.renaming = Some(path);
                say(350, "and now RNTO")
            }
            Command::Size(name) => self.size(caller, &name).await?,
            Command::Stat(Some(name)) => self.stat_path(caller, &name).await?,
            _ => say(502, "not offered here"),
        })
    }

    /// A name may begin like a time: what is there is asked first, for a question must change nothing.
    async fn modified(&self, caller: &Caller, name: &str) -> Result<Turn> {
        match self.look_at(caller, name).await {
            // RFC 3659 §3.1: a file's time; that of a folder is told by MLST and MLSD.
            Ok(entry) if entry.node.kind == NodeKind::Folder => {
                Err(Error::new(Kind::WrongType, "this is a folder, not a file"))
            }
            Ok(entry) => Ok(say(213, stamp(entry.node.modified))),
            Err(error) => match dated(name) {
                Some((modified, name)) => self.touch(caller, modified, name, false).await,
                None => Err(error),
            },
        }
    }

    /// Is something there that this caller may know of?
    pub(super) async fn is_there(&self, caller: &Caller, name: &str) -> bool {
        self.look_at(caller, name).await.is_ok()
    }

    /// The argument of a listing command without flags of `ls`. One that is the name of something is no flag.
    async fn listed<'a>(&self, caller: &Caller, argument: &'a str) -> &'a str {
        match argument.starts_with('-') && !self.is_there(caller, argument).await {
            true => without_flags(argument),
            false => argument,
        }
    }

    async fn look_at(&self, caller: &Caller, name: &str) -> Result<Entry> {
        caller.stat(&self.resolve(caller, name).await?).await
    }

    async fn enter(&mut self, caller: &Caller, name: &str) -> Result<Turn> {
        let entry = self.look_at(caller, name).await?;
        if entry.node.kind != NodeKind::Folder {
            return Err(Error::new(Kind::WrongType, "this is a file, not a folder"));
        }
        self.cwd = entry.path;
        Ok(say(250, format!("in {}", Self::shown(caller, &self.cwd))))
    }

    /// In TYPE A with conversion the size on the wire is not known without reading the file (RFC 3659 §4).
    async fn size(&self, caller: &Caller, name: &str) -> Result<Turn> {
        if self.framing() == Framing::Ascii {
            return Ok(say(550, "SIZE needs TYPE I"));
        }
        let path = self.resolve(caller, name).await?;
        match caller.stat(&path).await {
            Ok(entry) if entry.node.kind == NodeKind::File => Ok(say(213, entry.node.size.to_string())),
            Ok(entry) if entry.node.kind == NodeKind::Special => {
                Err(Error::new(Kind::WrongType, "a link or a special file has no size here"))
            }
            Ok(_) => Err(Error::new(Kind::WrongType, "this is a folder, not a file")),
            // Its own broken upload: the client asks where to go on.
            Err(error) => match caller.resumable(&path) {
                Some(length) if error.kind() == Kind::NotFound => Ok(say(213, length.to_string())),
                _ => Err(error),
            },
        }
    }

    async fn make_folder(&self, caller: &Caller, name: &str) -> Result<Turn> {
        let begun = Instant::now();
        let path = self.resolve(caller, name).await?;
        let made = caller.perform(MakeFolder { path: path.clone() }).await;
        let words = format!("{} made", quoted(&Self::shown(caller, &path)));
        Ok(self.done("MKD", &path, begun, made.map(|()| Reply::new(257, words))))
    }

    async fn remove_file(&self, caller: &Caller, name: &str) -> Result<Turn> {
        let begun = Instant::now();
        let path = self.resolve(caller, name).await?;
        let gone = caller.perform(RemoveFile { path: path.clone(), tokens: Vec::new() }).await;
        Ok(self.done("DELE", &path, begun, gone.map(|()| Reply::new(250, "removed"))))
    }

    async fn remove_folder(&self, caller: &Caller, name: &str) -> Result<Turn> {
        let begun = Instant::now();
        let path = self.resolve(caller, name).await?;
        let gone = caller.perform(RemoveFolder { path: path.clone(), all: false, tokens: Vec::new() }).await;
        Ok(self.done("RMD", &path, begun, gone.map(|()| Reply::new(250, "removed"))))
    }

    pub(super) async fn rename(&self, caller: &Caller, from: TreePath, name: &str) -> Result<Turn> {
        let begun = Instant::now();
        let to = self.resolve(caller, name).await?;
        let act = Rename { from: from.clone(), to: to.clone(), taken: Taken::AsRuled, tokens: Vec::new() };
        let renamed = caller.perform(act).await.map(|got| match got == to {
            true => Reply::new(250, "renamed"),
            false => Reply::new(250, format!("renamed to {}", got.name())),
        });
        Ok(self.done("RNTO", &from, begun, renamed))
    }

    async fn touch(&self, caller: &Caller, modified: i64, name: &str, told: bool) -> Result<Turn> {
        let begun = Instant::now();
        let path = self.resolve(caller, name).await?;
        let touched = caller.perform(SetModified { path: path.clone(), modified }).await;
        let words = match told {
            true => format!("Modify={}; {}", stamp(modified), Self::shown(caller, &path)),
            false => stamp(modified),
        };
        Ok(self.done("MFMT", &path, begun, touched.map(|()| Reply::new(213, words))))
    }

    fn done(&self, verb: &str, path: &TreePath, begun: Instant, outcome: Result<Reply>) -> Turn {
        let reply = outcome.unwrap_or_else(|error| {
            log_fault(&error);
            Reply::from(&error)
        });
        self.noted(verb, path, 0, begun, reply)
    }

    /// What a listing command names: a folder, a file, or a pattern in a folder.
    async fn aim(&self, caller: &Caller, name: &str) -> Result<Aim> {
        let path = self.resolve(caller, name).await?;
        match caller.stat(&path).await {
            Ok(entry) if entry.node.kind != NodeKind::Folder => Ok(Aim::File(entry)),
            Ok(_) => Ok(Aim::Folder(caller.list(&path).await?, path, None)),
            Err(error) => {
                let (folder, pattern) = name.rsplit_once('/').unwrap_or(("", name));
                if error.kind() != Kind::NotFound || !is_pattern(pattern) {
                    return Err(error);
                }
                let folder = match (folder, name.starts_with('/')) {
                    ("", true) => "/",
                    ("", false) => ".",
                    _ => folder,
                };
                let path = self.resolve(caller, folder).await?;
                Ok(Aim::Folder(caller.list(&path).await?, path, Some(pattern.nfc().collect())))
            }
        }
    }

    pub(super) async fn list(&mut self, caller: &Caller, style: Style, name: Option<&str>) -> Result<Turn> {
        self.offset = 0;
        let lane = match self.lane(Way::Out) {
            Ok(lane) => lane,
            Err(reply) => return Ok(Turn::Say(reply)),
        };
        let begun = Instant::now();
        let name = match name {
            // MLSD takes no flags (RFC 3659 §7.1).
            Some(argument) if style != Style::Machine => Some(self.listed(caller, argument).await),
            name => name,
        };
        let name = name.filter(|name| !name.is_empty());
        let aim = self.aim(caller, name.unwrap_or(".")).await?;
        let mut look = Look { style, ..self.look(caller) };
        let (source, path) = match aim {
            Aim::File(_) if style == Style::Machine => return Ok(say(501, "MLSD is for folders; use MLST")),
            Aim::File(entry) => {
                let mut line = String::new();
                let shown = if style == Style::Names { name.unwrap_or_default() } else { entry.node.name.as_str() };
                look.line(&entry, shown, &mut line);
                (Source::Feed(Box::new(Once(Some(line.into())))), entry.path)
            }
            Aim::Folder(listing, path, pattern) => {
                // RFC 1123 §4.1.2.7: each name must be usable as it is in the next command.
                look.prefix = prefix(name, pattern.is_some());
                look.pattern = pattern;
                (Source::Feed(Box::new(Lines { listing, look })), path)
            }
        };
        let verb = match style {
            Style::Long => "LIST",
            Style::Machine => "MLSD",
            Style::Names => "NLST",
        };
        self.running = Some(Box::new(Running { verb, path, begun }));
        let source = self.in_page(source);
        Ok(Turn::Give { prompt: Some(Reply::new(150, "here comes the listing")), source, framing: Framing::Raw, lane })
    }

    /// A listing over the control connection, for clients whose data connections do not get through; streamed like any other.
    async fn stat_path(&mut self, caller: &Caller, name: &str) -> Result<Turn> {
        let begun = Instant::now();
        let look = Look { style: Style::Long, ..self.look(caller) };
        let name = match self.listed(caller, name).await {
            // Flags and nothing else.
            "" => return Ok(self.status(caller)),
            name => name,
        };
        let (source, path) = match self.aim(caller, name).await? {
            Aim::File(entry) => {
                let mut line = String::new();
                look.line(&entry, &entry.node.name, &mut line);
                (Source::Feed(Box::new(Once(Some(line.into())))), entry.path)
            }
            Aim::Folder(listing, path, pattern) => {
                let look = Look { pattern, ..look };
                (Source::Feed(Box::new(Lines { listing, look })), path)
            }
        };
        self.running = Some(Box::new(Running { verb: "STAT", path, begun }));
        let (source, prompt) = (self.in_page(source), Some(Reply::first(213, format!("Status of {name}:"))));
        Ok(Turn::Give { prompt, source, framing: Framing::Raw, lane: Lane::Inline })
    }

    /// A listing as this client can read it.
    fn in_page(&self, source: Source) -> Source {
        match (source, self.page()) {
            (Source::Feed(feed), Some(page)) => Source::Feed(Box::new(InPage { feed, page })),
            (source, _) => source,
        }
    }

    fn look(&self, caller: &Caller) -> Look {
        let owner = owner(caller).to_owned();
        Look { style: Style::Long, facts: self.facts, owner, prefix: String::new(), pattern: None }
    }
}

enum Aim {
    File(Entry),
    Folder(Listing, TreePath, Option<String>),
}

fn owner(caller: &Caller) -> &str {
    if caller.is_guest() { "stoa" } else { caller.name() }
}

fn prefix(name: Option<&str>, pattern: bool) -> String {
    let folder = match (name, pattern) {
        (None, _) => return String::new(),
        (Some(name), true) => match name.rsplit_once('/') {
            Some((folder, _)) => folder,
            None => return String::new(),
        },
        (Some(name), false) => name.trim_end_matches('/'),
    };
    if folder == "." { String::new() } else { format!("{folder}/") }
}
