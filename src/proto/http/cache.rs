//! Responses ready to be sent: heads and bodies of files asked for lately, exact for as long as they are used.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::header::{HeaderName, HeaderValue};
use parking_lot::RwLock;

use crate::hub::{Caller, Held, LetGo};
use crate::net::often::Often;
use crate::proto::http::file_answer::{FileAnswer, Part};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
const UNMODIFIED: &[u8] = b"HTTP/1.1 304 Not Modified\r\n";
/// What an entry takes beside its bytes, roughly.
const OVERHEAD: usize = 2 << 10;
/// What an open file counts for: descriptors are scarcer than memory.
const OPEN_FILE: usize = 64 << 10;

/// A body that can be sent many times.
#[derive(Clone)]
pub enum Content {
    /// In memory.
    Whole(Bytes),
    /// By the kernel, from an open file of this length.
    File(Arc<File>, u64),
}

impl Content {
    /// Bytes of the body.
    pub fn len(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::File(..) => OPEN_FILE,
        }
    }
}

/// What says that a response is still exact: the file whose bytes it has; and the one these stand for where that is another, and the
/// names of those that would have come before it.
pub struct Basis {
    pub sent: Held,
    pub others: Vec<Held>,
}

impl Basis {
    /// True when this caller, asking now, would get exactly this.
    pub fn is_for(&self, caller: &Caller) -> bool {
        self.sent.is_for(caller) && self.others.iter().all(|held| held.is_for(caller))
    }

    /// True when it can never be served again.
    pub fn is_past(&self) -> bool {
        self.sent.is_past() || self.others.iter().any(Held::is_past)
    }
}

/// An answer that may be sent again, with its head as HTTP/1 writes it.
pub struct Entry {
    held: Basis,
    /// Others get it in another coding.
    varies: bool,
    pub answer: FileAnswer,
    /// Status line and fields of the 200; `Date`, `Connection` and the empty line are the connection's.
    pub head: Bytes,
    /// The fields of a 206, without those that name the range.
    pub lines: Bytes,
    /// Status line and fields of the 304.
    pub unmodified: Bytes,
    /// The body.
    pub content: Content,
    /// What is known of its file, if it has one.
    pub often: Often,
}

/// What is needed beside an answer to send it again.
pub struct Keep {
    pub held: Basis,
    pub content: Content,
    pub audience: Audience,
    pub varies: bool,
}

impl Entry {
    /// An answer with its header fields complete.
    pub fn new(keep: Keep, answer: FileAnswer) -> Self {
        let Keep { held, content, varies, .. } = keep;
        let head = [OK, &lines(&answer.head(&Part::Whole).1)].concat().into();
        let unmodified = [UNMODIFIED, &lines(&answer.head(&Part::Unmodified).1)].concat().into();
        let (lines, often) = (lines(&answer.headers), Often::default());
        Self { held, varies, answer, head, lines, unmodified, content, often }
    }

    /// What says that it is still exact.
    pub fn held(&self) -> &Basis {
        &self.held
    }

    fn weight(&self) -> usize {
        self.head.len() + self.unmodified.len() + self.answer.path.len() * 2 + self.content.weight() + OVERHEAD
    }
}

/// Header fields as HTTP/1 writes them.
pub fn lines<'a>(fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Bytes {
    let mut text = BytesMut::with_capacity(512);
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.freeze()
}

/// For whom a response was made: headers, coding, even the file differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audience {
    /// The number of the site, 0 for the tree.
    pub site: u16,
    /// Someone who is signed in.
    pub account: bool,
    /// By TLS.
    pub secure: bool,
    /// Codings the client takes, as bits below 8; 0 also for what is the same in all.
    pub codings: u8,
}

impl Audience {
    /// Its shelf: responses for different audiences never meet.
    fn shelf(self) -> usize {
        let whom = usize::from(self.account) | usize::from(self.secure) << 1;
        (usize::from(self.site) << 2 | whom) << 3 | usize::from(self.codings)
    }

    fn uncoded(self) -> Self {
        Self { codings: 0, ..self }
    }
}

/// Entries by request target. Two generations: when the young one has half of the room it becomes the old one, and what was old is
/// forgotten; what is used stays.
pub struct Cache {
    room: usize,
    shelves: RwLock<Shelves>,
}

#[derive(Default)]
struct Shelves {
    young: Vec<HashMap<Box<str>, Arc<Entry>>>,
    old: Vec<HashMap<Box<str>, Arc<Entry>>>,
    /// Weight of the young ones.
    weight: usize,
}

impl Cache {
    /// Room for about so many bytes; 0: nothing is kept.
    pub fn new(room: u64) -> Self {
        Self { room: usize::try_from(room).unwrap_or(usize::MAX), shelves: RwLock::default() }
    }

    /// Could anything be kept?
    pub fn is_on(&self) -> bool {
        self.room > 0
    }

    /// What is there for a target; whether it still holds is for the caller to ask.
    pub fn find(&self, audience: Audience, target: &str) -> Option<Arc<Entry>> {
        let entry = self.on_shelf(audience.uncoded().shelf(), target);
        match entry {
            Some(entry) if audience.codings == 0 || !entry.varies => Some(entry),
            _ if audience.codings == 0 => None,
            _ => self.on_shelf(audience.shelf(), target),
        }
    }

    fn on_shelf(&self, shelf: usize, target: &str) -> Option<Arc<Entry>> {
        let shelves = self.shelves.read();
        if let Some(entry) = shelves.young.get(shelf).and_then(|young| young.get(target)) {
            return Some(entry.clone());
        }
        let entry = shelves.old.get(shelf)?.get(target)?.clone();
        drop(shelves);
        // Not worth waiting for: it is found among the old ones the next time too.
        if let Some(mut shelves) = self.shelves.try_write() {
            shelves.put(shelf, target, entry.clone(), self.room / 2);
        }
        Some(entry)
    }

    /// Keeps an entry.
    pub fn put(&self, audience: Audience, target: &str, entry: Entry) {
        if entry.weight() <= self.room / 8 {
            self.shelves.write().put(audience.shelf(), target, Arc::new(entry), self.room / 2);
        }
    }

    /// Forgets an entry that no longer holds, unless a newer one took its place.
    pub fn forget(&self, audience: Audience, target: &str, entry: &Arc<Entry>) {
        let mut shelves = self.shelves.write();
        let Shelves { young, old, weight } = &mut *shelves;
        for at in [audience.uncoded().shelf(), audience.shelf()] {
            for (shelf, counted) in [(young.get_mut(at), true), (old.get_mut(at), false)] {
                let Some(shelf) = shelf else { continue };
                if shelf.get(target).is_some_and(|there| Arc::ptr_eq(there, entry)) {
                    shelf.remove(target);
                    if counted {
                        *weight = weight.saturating_sub(entry.weight());
                    }
                }
            }
        }
    }
}

impl LetGo for Cache {
    fn let_go(&self) {
        let is_past = |entry: &Arc<Entry>| matches!(entry.content, Content::File(..)) && entry.held().is_past();
        let shelves = self.shelves.read();
        let any = shelves.young.iter().chain(&shelves.old).flat_map(HashMap::values).any(is_past);
        drop(shelves);
        if !any {
            return;
        }
        let mut shelves = self.shelves.write();
        let Shelves { young, old, weight } = &mut *shelves;
        for shelf in young {
            shelf.retain(|_, entry| {
                let past = is_past(entry);
                if past {
                    *weight = weight.saturating_sub(entry.weight());
                }
                !past
            });
        }
        for shelf in old {
            shelf.retain(|_, entry| !is_past(entry));
        }
    }
}

impl Shelves {
    fn put(&mut self, shelf: usize, target: &str, entry: Arc<Entry>, half: usize) {
        if self.weight + entry.weight() > half {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        if let Some(old) = self.old.get_mut(shelf) {
            old.remove(target);
        }
        self.weight += entry.weight();
        if self.young.len() <= shelf {
            self.young.resize_with(shelf + 1, HashMap::new);
        }
        let replaced = self.young.get_mut(shelf).and_then(|young| young.insert(target.into(), entry));
        self.weight = self.weight.saturating_sub(replaced.map_or(0, |entry| entry.weight()));
    }
}
