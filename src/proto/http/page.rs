//! Our own pages: script-free HTML that works in any browser, one style sheet, nothing from elsewhere.

use std::sync::LazyLock;

use hyper::{Response, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::hub::{Entry, NodeKind, TreePath, Verb, Verbs};
use crate::proto::http::base::Base;
use crate::proto::http::body::Outgoing;
use crate::proto::http::shown::shown;
use crate::proto::http::{date, mime, reply};
use crate::units::ByteSize;

const STYLE: &str = include_str!("../../../web/stoa.css");

/// The style sheet's address changes with its content, so that browsers may keep it for ever.
static STYLE_URL: LazyLock<String> = LazyLock::new(|| {
    let hash = blake3::hash(STYLE.as_bytes()).to_hex();
    format!("/-/assets/stoa.css?v={}", hash.get(..12).unwrap_or_default())
});

/// Where the rows of a folder go in its page; escaped text can never look like it.
const ROWS: &str = "<!--rows-->";

const LOGO: &str = r#"<svg class="logo" viewBox="0 0 24 24" aria-hidden="true"><path d="M3 9 12 3l9 6v1.5H3zM5 12h2.4v6H5zM10.8 12h2.4v6h-2.4zM16.6 12H19v6h-2.4zM3 19.5h18V21H3z"/></svg>"#;
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='%238a4b2a'%3E%3Cpath d='M3 9 12 3l9 6v1.5H3zM5 12h2.4v6H5zM10.8 12h2.4v6h-2.4zM16.6 12H19v6h-2.4zM3 19.5h18V21H3z'/%3E%3C/svg%3E";
const SYMBOLS: &str = include_str!("../../../web/icons.svg");

/// How a folder's page is sorted.
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
}

/// What a folder's page shows beside its rows.
pub struct Folder<'a> {
    pub base: &'a Base,
    pub path: &'a TreePath,
    pub who: Option<&'a str>,
    pub rights: Verbs,
    /// `None` when the folder is too large to be sorted.
    pub order: Option<Order>,
    /// What is in it, where all of it is known.
    pub sum: Option<Sum>,
    /// The caller may add and not look.
    pub denied: bool,
    pub notice: Option<String>,
}

/// What a folder holds, itself and not below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub folders: usize,
    pub files: usize,
    pub bytes: u64,
}

impl Sum {
    /// Of these entries.
    pub fn of(entries: &[Entry]) -> Self {
        let mut sum = Self::default();
        for entry in entries {
            match entry.node.kind {
                NodeKind::File | NodeKind::Special => sum.files += 1,
                NodeKind::Folder => sum.folders += 1,
            }
            sum.bytes = sum.bytes.saturating_add(entry.node.size);
        }
        sum
    }

    fn is_empty(self) -> bool {
        self.files + self.folders == 0
    }

    /// `2 folders, 3 files, 5 MiB`
    fn words(self) -> String {
        let some = |count: usize, one: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            more => Some(format!("{more} {one}s")),
        };
        let size = (self.files > 0).then(|| ByteSize(self.bytes).to_string());
        let parts = [some(self.folders, "folder"), some(self.files, "file"), size];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// The style sheet.
pub fn style() -> Response<Outgoing> {
    let mut response = reply::typed(Outgoing::whole(STYLE), "text/css; charset=utf-8");
    reply::set(&mut response, header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    response
}

/// What the bar on top offers.
#[derive(Clone, Copy)]
enum Bar<'a> {
    /// To sign out.
    Account(&'a str),
    /// To sign in.
    Guest,
    /// Nothing.
    Plain,
}

impl<'a> Bar<'a> {
    fn of(who: Option<&'a str>, otherwise: Self) -> Self {
        who.map_or(otherwise, Self::Account)
    }
}

fn shell(base: &Base, title: &str, bar: Bar<'_>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Stoa" }
                link rel="icon" href=(ICON);
                link rel="stylesheet" href={ (base) (*STYLE_URL) };
            }
            body {
                header.bar {
                    a.brand href={ (base) "/" } { (PreEscaped(LOGO)) span { "Stoa" } }
                    @match bar {
                        Bar::Account(name) => form.account method="post" action={ (base) "/-/logout" } {
                            a href={ (base) "/-/connect" } { "Connect" }
                            span.who { (name) }
                            button.quiet { "Sign out" }
                            button.quiet name="everywhere" value="1" title="End all sessions of this account, in every browser and program" {
                                "Everywhere"
                            }
                        },
                        Bar::Guest => nav.account {
                            a href={ (base) "/-/connect" } { "Connect" }
                            a href={ (base) "/-/login" } { "Sign in" }
                        },
                        Bar::Plain => {}
                    }
                }
                (main)
            }
        }
    }
}

/// A page of text in the usual frame.
pub fn framed(base: &Base, title: &str, who: Option<&str>, main: &Markup) -> Markup {
    shell(base, title, Bar::of(who, Bar::Guest), main)
}

/// The sign-in page.
pub fn login(base: &Base, next: &str, message: Option<&str>) -> Markup {
    shell(
        base,
        "Sign in",
        Bar::Plain,
        &html! {
            main.narrow {
                form.card method="post" action={ (base) "/-/login" } {
                    h1 { "Sign in" }
                    @if let Some(text) = message { p.error role="alert" { (text) } }
                    label { "Name" input name="name" autocomplete="username" autocapitalize="none" spellcheck="false" required autofocus; }
                    label { "Password" input name="password" type="password" autocomplete="current-password" required; }
                    input type="hidden" name="next" value=(next);
                    button.primary { "Sign in" }
                }
            }
        },
    )
}

/// A page that says no.
pub fn refusal(base: &Base, status: StatusCode, text: &str, who: Option<&str>) -> Markup {
    let title = status.canonical_reason().unwrap_or("Error");
    shell(
        base,
        title,
        Bar::of(who, Bar::Plain),
        &html! {
            main.narrow {
                section.card {
                    p.code { (status.as_u16()) }
                    h1 { (title) }
                    p { (sentence(text)) }
                    nav.actions {
                        a.button href={ (base) "/" } { "Go to the start" }
                        @if who.is_none() && status != StatusCode::TOO_MANY_REQUESTS { a.button href={ (base) "/-/login" } { "Sign in" } }
                    }
                }
            }
        },
    )
}

/// The house's words begin small and end open; on a page they are a sentence.
pub fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}

/// A folder's page without its rows: what comes before them, and after.
pub fn folder(folder: &Folder<'_>) -> (String, String) {
    let name = if folder.path.is_root() { "Files" } else { folder.path.name() };
    let page = shell(
        folder.base,
        &shown(name),
        Bar::of(folder.who, Bar::Guest),
        &html! {
            (PreEscaped(SYMBOLS))
            main {
                div.top {
                    (crumbs(folder))
                    (tools(folder))
                }
                @if let Some(text) = &folder.notice { p.notice role="status" { (text) } }
                @if folder.denied {
                    p.hint { "You may add files here, but not see what is in it." }
                } @else if folder.sum.is_some_and(Sum::is_empty) {
                    p.hint { "This folder is empty." }
                } @else {
                    (table(folder))
                    (picked(folder))
                    @if let Some(sum) = folder.sum { p.sum { (sum.words()) } }
                }
            }
        },
    )
    .into_string();
    match page.split_once(ROWS) {
        Some((head, tail)) => (head.to_owned(), tail.to_owned()),
        None => (page, String::new()),
    }
}

fn crumbs(folder: &Folder<'_>) -> Markup {
    let mut here = TreePath::root();
    let mut links = Vec::new();
    for part in folder.path.parts() {
        here = here.join(part).unwrap_or(here);
        links.push((part.to_owned(), folder.base.url(&here, true)));
    }
    let last = links.len();
    html! {
        nav.crumbs aria-label="Folder" {
            @if last == 0 { h1 { "Files" } } @else { a href={ (folder.base) "/" } { "Files" } }
            @for (at, (name, url)) in links.iter().enumerate() {
                span.sep aria-hidden="true" { "/" }
                @if at + 1 == last { h1 { (name) } } @else { a href=(url) { (name) } }
            }
        }
    }
}

fn table(folder: &Folder<'_>) -> Markup {
    html! {
        table.files {
            thead { tr {
                th.pick { span.unseen { "Choose" } }
                (column(folder.order, "name", "Name", "name"))
                (column(folder.order, "size", "Size", "size"))
                (column(folder.order, "time", "Changed (UTC)", "time"))
                th.act { span.unseen { "Rename, delete" } }
            } }
            tbody { (PreEscaped(ROWS)) }
        }
    }
}

/// A column's head; a link that sorts by it where that is possible.
fn column(order: Option<Order>, by: &str, title: &str, class: &str) -> Markup {
    let current = order.filter(|order| order.by == by);
    let down = current.is_some_and(|order| !order.down);
    let sort = current.map(|order| if order.down { "descending" } else { "ascending" });
    html! {
        th class=(class) aria-sort=[sort] {
            @if order.is_some() {
                a href={ "?sort=" (by) "&order=" (if down { "desc" } else { "asc" }) } {
                    (title)
                    @if let Some(order) = current { span aria-hidden="true" { (if order.down { " ↓" } else { " ↑" }) } }
                }
            } @else { (title) }
        }
    }
}

/// Forms behind two buttons; `name` makes the browser open one at a time.
fn tools(folder: &Folder<'_>) -> Markup {
    let here = folder.base.url(folder.path, true);
    let listed = !folder.denied && !folder.sum.is_some_and(Sum::is_empty);
    html! {
        div.tools {
            @if listed {
                details.tool.menu name="tool" {
                    summary.button { "Download" }
                    nav {
                        a.button href="?archive=zip" { "All as .zip" }
                        a.button href="?archive=tar" { "All as .tar" }
                    }
                }
            }
            @if folder.rights.has(Verb::Create) { (adding(&here)) }
        }
    }
}

fn adding(here: &str) -> Markup {
    html! {
            details.tool name="tool" {
                summary.button { "New folder" }
                form method="post" action=(here) {
                    label for="name" { "Name of the folder" }
                    input id="name" name="name" maxlength="255" autocomplete="off" required;
                    button.primary name="do" value="folder" { "Create" }
                }
            }
            details.tool name="tool" {
                summary.button.primary { "Add files" }
                form method="post" action=(here) enctype="multipart/form-data" {
                    label for="file" { "Files from this device" }
                    input id="file" type="file" name="file" multiple required;
                    button.primary { "Upload" }
                }
            }
    }
}

/// What can be done with the rows that are chosen; the style sheet shows it when there are any.
fn picked(folder: &Folder<'_>) -> Markup {
    html! {
        form.picked id="picked" method="post" action=(folder.base.url(folder.path, true)) {
            span { "Chosen:" }
            button name="do" value="zip" { "Get .zip" }
            button name="do" value="tar" { "Get .tar" }
            @if folder.rights.has(Verb::Delete) {
                details.sure {
                    summary.button.danger { "Delete…" }
                    button.danger name="do" value="delete" { "Yes, delete what is chosen" }
                }
            }
            button.quiet type="reset" { "None" }
        }
    }
}

/// Rows of a folder.
pub fn rows(base: &Base, entries: &[Entry]) -> String {
    html! { @for entry in entries { (row(base, entry)) } }.into_string()
}

fn row(base: &Base, entry: &Entry) -> Markup {
    let folder = entry.node.kind == NodeKind::Folder;
    let name = entry.path.name();
    let url = base.url(&entry.path, folder);
    let parent = base.url(&entry.path.parent().unwrap_or_else(TreePath::root), true);
    html! {
        tr {
            td.pick { label { input type="checkbox" name="name" value=(name) form="picked" aria-label={ "Choose " (name) }; } }
            td.name {
                @if entry.node.kind == NodeKind::Special {
                    span title="A link or a special file on the server's disk. It is never opened; it can be renamed and deleted." { (shown(name)) }
                } @else {
                    a.(if folder { "folder" } else { "file" }) href=(url) {
                        svg.icon aria-hidden="true" { use href=(if folder { "#i-folder" } else { icon(name) }); }
                        span { (shown(name)) }
                    }
                }
            }
            td.size title=[(!folder).then(|| exact(entry.node.size))] { @if !folder { (ByteSize(entry.node.size)) } }
            td.time {
                // A folder that stands for a space mounted there has no time of its own.
                @if entry.node.modified != 0 {
                    time datetime=(date::rfc3339(entry.node.modified)) { (date::short(entry.node.modified)) }
                }
            }
            td.act {
                @if entry.node.modified != 0 && (entry.rights.has(Verb::Delete) || entry.rights.has(Verb::Rename)) {
                    (more(entry, &parent))
                }
            }
        }
    }
}

/// Renaming and deleting, behind a mark at the end of the row.
fn more(entry: &Entry, parent: &str) -> Markup {
    let name = entry.path.name();
    html! {
        details.more name="more" {
            summary aria-label={ "Rename or delete " (name) } { "⋯" }
            form method="post" action=(parent) {
                input type="hidden" name="name" value=(name);
                @if entry.rights.has(Verb::Rename) {
                    input name="to" value=(name) maxlength="255" autocomplete="off" spellcheck="false" aria-label="New name";
                    button name="do" value="rename" { "Rename" }
                }
                @if entry.rights.has(Verb::Delete) {
                    button.danger name="do" value="delete" { "Delete" }
                }
            }
        }
    }
}

/// `184,320 bytes`
fn exact(bytes: u64) -> String {
    let digits = bytes.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + if bytes == 1 { " byte" } else { " bytes" }
}

/// The picture of a file, by its type.
fn icon(name: &str) -> &'static str {
    let kind = mime::of(name);
    match kind.split('/').next() {
        Some("audio") => "#i-sound",
        Some("image") => "#i-picture",
        Some("video") => "#i-film",
        Some("text") => "#i-text",
        _ if kind.contains("document") || kind.ends_with("pdf") || kind.ends_with("word") => "#i-text",
        _ if ["zip", "tar", "compressed", "rar", "bzip2", "-xz", "zstd"].iter().any(|end| kind.ends_with(end)) => {
            "#i-archive"
        }
        _ => "#i-file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_markup() {
        let path = TreePath::parse("/<script>alert(1)<!--rows-->").unwrap();
        let base = Base::default();
        let folder = Folder {
            base: &base,
            path: &path,
            who: Some("<b>"),
            rights: Verbs::EDIT,
            order: Some(Order::read(None, None)),
            sum: Some(Sum { folders: 1, files: 2, bytes: 4096 }),
            denied: false,
            notice: Some("<i>".into()),
        };
        let (head, tail) = super::folder(&folder);
        assert!(head.ends_with("<tbody>") && tail.starts_with("</tbody>"));
        for text in ["<script", "<b>", "<i>"] {
            assert!(!head.contains(text) && !tail.contains(text), "{text}");
        }
        assert!(tail.contains("1 folder, 2 files, 4 KiB"));
        assert!(!login(&base, "\"><script>", None).into_string().contains("<script>"));
    }

    #[test]
    fn sizes_are_told_to_the_byte() {
        assert_eq!(
            [exact(0), exact(1), exact(999), exact(1_234_567)].join("; "),
            "0 bytes; 1 byte; 999 bytes; 1,234,567 bytes"
        );
    }

    #[test]
    fn the_houses_words_become_sentences() {
        assert_eq!(sentence("the folder is not empty"), "The folder is not empty.");
        assert_eq!(sentence(""), "");
    }
}
