//! A folder of any size as pages of rows, in memory of a few pages.
//!
//! A page is found by the entry it follows or precedes, so that one pass over the folder and the rows of one page are all that is needed.

use std::cmp::Ordering;

use crate::error::Result;
use crate::hub::{Entry, Listing, NodeKind};
use crate::proto::http::natural;
use crate::proto::http::target;

/// Rows of a page.
pub const ROWS: usize = 200;

/// How a folder's page is sorted: folders first, then by this, then by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// `name`, `size` or `time`.
    pub by: &'static str,
    /// Largest first.
    pub down: bool,
}

impl Order {
    /// Reads the query's `sort` and `order`.
    pub fn read(sort: Option<&str>, order: Option<&str>) -> Self {
        let by = ["name", "size", "time"].into_iter().find(|by| sort == Some(*by)).unwrap_or("name");
        Self { by, down: order == Some("desc") }
    }

    /// Compares two entries.
    pub fn compare(self, one: &Entry, other: &Entry) -> Ordering {
        self.compare_keys(&Key::of(self, one), &Key::of(self, other))
    }

    fn compare_keys(self, one: &Key<'_>, other: &Key<'_>) -> Ordering {
        let names = natural::compare(one.name, other.name);
        let wanted = one.number.cmp(&other.number).then(if self.by == "name" { names } else { Ordering::Equal });
        let wanted = if self.down { wanted.reverse() } else { wanted };
        other.folder.cmp(&one.folder).then(wanted).then(names)
    }
}

/// What an entry is sorted by.
#[derive(Debug, PartialEq, Eq)]
struct Key<'a> {
    folder: bool,
    number: i64,
    name: &'a str,
}

impl<'a> Key<'a> {
    fn of(order: Order, entry: &'a Entry) -> Self {
        let number = match order.by {
            "size" => i64::try_from(entry.node.size).unwrap_or(i64::MAX),
            "time" => entry.node.modified,
            _ => 0,
        };
        Self { folder: entry.node.kind == NodeKind::Folder, number, name: entry.path.name() }
    }
}

/// Where a page begins or ends: at an entry that need not be there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The page follows the entry; otherwise it precedes it.
    after: bool,
    folder: bool,
    number: i64,
    name: String,
}

impl Cursor {
    /// Reads the query's `after` or `before`; what cannot be read begins at the beginning.
    pub fn read(after: Option<&str>, before: Option<&str>) -> Option<Self> {
        let (sort, number) = after.or(before)?.split_at_checked(1)?;
        let (number, name) = number.split_once('/')?;
        let folder = match sort {
            "d" => true,
            "f" => false,
            _ => return None,
        };
        Some(Self { after: after.is_some(), folder, number: number.parse().ok()?, name: name.to_owned() })
    }

    fn key(&self) -> Key<'_> {
        Key { folder: self.folder, number: self.number, name: &self.name }
    }
}

/// The query that leads to the page behind (or before) an entry.
fn query(order: Order, entry: &Entry, side: &str) -> String {
    let key = Key::of(order, entry);
    let (sort, down) = (if key.folder { 'd' } else { 'f' }, if order.down { "desc" } else { "asc" });
    format!("?sort={}&order={down}&{side}={sort}{}/{}", order.by, key.number, target::escape(key.name))
}

/// What a folder holds, itself and not below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub folders: usize,
    pub files: usize,
    pub bytes: u64,
}

impl Sum {
    /// Counts an entry.
    pub fn add(&mut self, entry: &Entry) {
        match entry.node.kind {
            NodeKind::File | NodeKind::Special => self.files += 1,
            NodeKind::Folder => self.folders += 1,
        }
        self.bytes = self.bytes.saturating_add(entry.node.size);
    }

    /// Files and folders.
    pub fn count(self) -> usize {
        self.files + self.folders
    }
}

/// One page of a folder.
#[derive(Default)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// Entries before the first one of the page.
    pub skipped: usize,
    /// Of the whole folder.
    pub sum: Sum,
    /// The queries that lead on and back.
    pub next: Option<String>,
    pub previous: Option<String>,
}

/// Reads the page at a cursor, or the first one, of the entries that are shown.
///
/// # Errors
/// The listing's.
pub async fn read(
    listing: &mut Listing,
    order: Order,
    cursor: Option<&Cursor>,
    shows: impl Fn(&Entry) -> bool,
) -> Result<Page> {
    let mut rows = Rows { order, cursor, best: Vec::new(), fitting: 0 };
    let mut sum = Sum::default();
    loop {
        let page = listing.next_page().await?;
        if page.is_empty() {
            return Ok(rows.page(sum));
        }
        for entry in page.into_iter().filter(&shows) {
            sum.add(&entry);
            rows.add(entry);
        }
    }
}

/// The rows of a page among all that come by.
struct Rows<'a> {
    order: Order,
    cursor: Option<&'a Cursor>,
    /// Candidates: cut to a page now and then.
    best: Vec<Entry>,
    /// Entries on the cursor's side.
    fitting: usize,
}

impl Rows<'_> {
    fn backward(&self) -> bool {
        self.cursor.is_some_and(|cursor| !cursor.after)
    }

    fn add(&mut self, entry: Entry) {
        let side = self.cursor.map(|cursor| self.order.compare_keys(&Key::of(self.order, &entry), &cursor.key()));
        let fits = match side {
            None => true,
            Some(side) => side == if self.backward() { Ordering::Less } else { Ordering::Greater },
        };
        if fits {
            self.fitting += 1;
            self.best.push(entry);
            if self.best.len() >= 4 * ROWS {
                self.cut();
            }
        }
    }

    /// Keeps those nearest to the cursor.
    fn cut(&mut self) {
        let (order, backward) = (self.order, self.backward());
        self.best.sort_unstable_by(|a, b| {
            let forward = order.compare(a, b);
            if backward { forward.reverse() } else { forward }
        });
        self.best.truncate(ROWS);
    }

    fn page(mut self, sum: Sum) -> Page {
        self.cut();
        let (order, backward) = (self.order, self.backward());
        if backward {
            self.best.reverse();
        }
        let (shown, others) = (self.best.len(), sum.count() - self.fitting);
        let skipped = if backward { self.fitting - shown } else { others };
        let more = skipped + shown < sum.count();
        let lead = |entry: Option<&Entry>, side| entry.map(|entry| query(order, entry, side));
        let next = if more { lead(self.best.last(), "after") } else { None };
        let previous = if skipped > 0 { lead(self.best.first(), "before") } else { None };
        Page { next, previous, entries: self.best, skipped, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Node, TreePath, Verbs};

    fn entry(name: &str, folder: bool, size: u64) -> Entry {
        let kind = if folder { NodeKind::Folder } else { NodeKind::File };
        let path = TreePath::root().join(name).unwrap();
        Entry { path, node: Node { name: name.into(), kind, size, modified: 0, tag: 1 }, rights: Verbs::NONE }
    }

    fn page(all: &[Entry], query: &str) -> Page {
        let pairs: Vec<(String, String)> = crate::proto::http::form::pairs(query.trim_start_matches('?')).collect();
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let cursor = Cursor::read(value("after"), value("before"));
        let order = Order::read(value("sort"), value("order"));
        let mut rows = Rows { order, cursor: cursor.as_ref(), best: Vec::new(), fitting: 0 };
        let mut sum = Sum::default();
        for entry in all {
            sum.add(entry);
            rows.add(entry.clone());
        }
        rows.page(sum)
    }

    #[test]
    fn pages_forward_and_back_show_every_row_once_in_order() {
        let mut all: Vec<Entry> =
            (0..2_345).map(|n| entry(&format!("IMG_{n} ä&=/%.jpg").replace('/', "_"), false, n % 7)).collect();
        all.extend((0..321).map(|n| entry(&format!("folder {n}"), true, 0)));
        let mid = all.len() / 2;
        all.rotate_left(mid);
        for sort in ["?sort=name&order=asc", "?sort=name&order=desc", "?sort=size&order=asc", "?sort=size&order=desc"] {
            let order = Order::read(sort.split(['=', '&']).nth(1), sort.rsplit('=').next());
            let mut sorted = all.clone();
            sorted.sort_by(|a, b| order.compare(a, b));
            let names = |entries: &[Entry]| entries.iter().map(|one| one.path.name().to_owned()).collect::<Vec<_>>();
            let (mut query, mut shown, mut pages) = (sort.to_owned(), Vec::new(), Vec::new());
            loop {
                let page = page(&all, &query);
                assert_eq!((page.skipped, page.sum.count()), (shown.len(), all.len()), "{query}");
                assert_eq!(page.previous.is_some(), !shown.is_empty());
                shown.extend(names(&page.entries));
                pages.push(names(&page.entries));
                let Some(next) = page.next else { break };
                query = next;
            }
            assert_eq!(shown, names(&sorted), "{sort}");
            assert!(pages.iter().rev().skip(1).all(|page| page.len() == ROWS));
            while let Some(previous) = page(&all, &query).previous {
                pages.pop();
                let back = page(&all, &previous);
                assert_eq!(Some(&names(&back.entries)), pages.last(), "{previous}");
                assert_eq!(back.skipped, (pages.len() - 1) * ROWS);
                query = previous;
            }
            assert_eq!(pages.len(), 1, "{sort}");
        }
    }

    #[test]
    fn a_cursor_that_is_none_begins_at_the_beginning() {
        for text in ["", "x", "d", "f1", "fx/a", "\u{e9}0/a"] {
            assert_eq!(Cursor::read(Some(text), None), None, "{text}");
        }
        let gone = page(&[entry("a", false, 1), entry("c", false, 1)], "?after=f0/b");
        assert_eq!((gone.entries.len(), gone.skipped, gone.next), (1, 1, None));
    }
}
