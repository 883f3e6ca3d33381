//! Our own pages: script-free HTML that works in any browser, one style sheet, nothing from elsewhere.

use std::sync::LazyLock;

use hyper::{Response, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::hub::{Entry, NodeKind, TreePath, Verb, Verbs};
use crate::proto::http::base::Base;
use crate::proto::http::body::Outgoing;
use crate::proto::http::pager::{Order, Page, Sum};
use crate::proto::http::shown::shown;
use crate::proto::http::{date, mime, reply};
use crate::units::ByteSize;

const STYLE: &str = include_str!("../../../web/stoa.css");

/// The style sheet's address changes with its content, so that browsers may keep it for ever.
static STYLE_URL: LazyLock<String> = LazyLock::new(|| {
    let hash = blake3::hash(STYLE.as_bytes()).to_hex();
    format!("/-/assets/stoa.css?v={}", hash.get(..12).unwrap_or_default())
});

const LOGO: &str = r#"<svg class="logo" viewBox="0 0 24 24" aria-hidden="true"><path d="M3 9 12 3l9 6v1.5H3zM5 12h2.4v6H5zM10.8 12h2.4v6h-2.4zM16.6 12H19v6h-2.4zM3 19.5h18V21H3z"/></svg>"#;
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='%238a4b2a'%3E%3Cpath d='M3 9 12 3l9 6v1.5H3zM5 12h2.4v6H5zM10.8 12h2.4v6h-2.4zM16.6 12H19v6h-2.4zM3 19.5h18V21H3z'/%3E%3C/svg%3E";
const SYMBOLS: &str = include_str!("../../../web/icons.svg");

/// What a folder's page shows beside its rows.
pub struct Folder<'a> {
    pub base: &'a Base,
    pub path: &'a TreePath,
    pub who: Option<&'a str>,
    pub rights: Verbs,
    pub order: Order,
    pub rows: &'a Page,
    /// The caller may add and not look.
    pub denied: bool,
    pub notice: Option<String>,
}

/// `2 folders, 3 files, 5 MiB`
pub fn words(sum: Sum) -> String {
    let some = |count: usize, one: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        more => Some(format!("{} {one}s", thousands(more as u64))),
    };
    let size = (sum.files > 0).then(|| ByteSize(sum.bytes).to_string());
    let parts = [some(sum.folders, "folder"), some(sum.files, "file"), size];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
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

/// Asks before something is deleted; `inside` says what is in the folders among it.
pub fn confirm(base: &Base, folder: &TreePath, who: Option<&str>, names: &[&str], inside: &str) -> Markup {
    let here = base.url(folder, true);
    let title = match names {
        [only] => format!("Delete {}?", shown(only)),
        several => format!("Delete {} items?", thousands(several.len() as u64)),
    };
    shell(
        base,
        &title,
        Bar::of(who, Bar::Plain),
        &html! {
            main.narrow {
                form.card method="post" action=(here) {
                    h1 { (title) }
                    @if names.len() > 1 { ul.names { @for name in names { li { (shown(name)) } } } }
                    @if !inside.is_empty() { p { (inside) } }
                    p { "This cannot be undone." }
                    @for name in names { input type="hidden" name="name" value=(name); }
                    input type="hidden" name="all" value="1";
                    nav.actions {
                        button.danger name="do" value="delete" { "Delete" }
                        a.button href=(here) { "Cancel" }
                    }
                }
            }
        },
    )
}

/// Says which files of a form were left out because their names are taken.
pub fn taken(base: &Base, folder: &TreePath, who: Option<&str>, stored: usize, names: &[String]) -> Markup {
    let here = base.url(folder, true);
    shell(
        base,
        "Not all files were added",
        Bar::of(who, Bar::Plain),
        &html! {
            main.narrow {
                section.card {
                    h1 { "Not all files were added" }
                    p { "Files with these names are there already. They were not changed, and yours were left out:" }
                    ul.names { @for name in names { li { (shown(name)) } } }
                    p {
                        @match stored {
                            0 => "No other file was sent.",
                            1 => "One other file was added.",
                            more => (format!("{} other files were added.", thousands(more as u64))),
                        }
                        " Give yours other names, or choose “Upload and replace”."
                    }
                    nav.actions { a.button.primary href=(here) { "Back to the folder" } }
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

/// A folder's page.
pub fn folder(folder: &Folder<'_>) -> Markup {
    let name = if folder.path.is_root() { "Files" } else { folder.path.name() };
    shell(
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
                } @else if folder.rows.sum.count() == 0 {
                    p.hint { "This folder is empty." }
                } @else if folder.rows.entries.is_empty() {
                    p.hint { "There is nothing more. " a href="?" { "Back to the beginning" } }
                } @else {
                    (table(folder))
                    (picked(folder))
                    (turner(folder.rows))
                }
            }
        },
    )
}

/// What the folder holds, and the way to its other pages.
fn turner(page: &Page) -> Markup {
    html! {
        nav.pages aria-label="Pages" {
            p.sum { (words(page.sum)) }
            @if page.next.is_some() || page.previous.is_some() {
                span {
                    @match &page.previous {
                        Some(query) => a.button href=(query) rel="prev" { "← Previous" },
                        None => span.button aria-disabled="true" { "← Previous" },
                    }
                    span.place { (thousands(page.skipped as u64 + 1)) "–" (thousands((page.skipped + page.entries.len()) as u64)) " of " (thousands(page.sum.count() as u64)) }
                    @match &page.next {
                        Some(query) => a.button href=(query) rel="next" { "Next →" },
                        None => span.button aria-disabled="true" { "Next →" },
                    }
                }
            }
        }
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
            tbody { @for entry in &folder.rows.entries { (row(folder.base, entry)) } }
        }
    }
}

/// A column's head: a link that sorts by it.
fn column(order: Order, by: &str, title: &str, class: &str) -> Markup {
    let current = Some(order).filter(|order| order.by == by);
    let down = current.is_some_and(|order| !order.down);
    let sort = current.map(|order| if order.down { "descending" } else { "ascending" });
    html! {
        th class=(class) aria-sort=[sort] {
            a href={ "?sort=" (by) "&order=" (if down { "desc" } else { "asc" }) } {
                (title)
                @if let Some(order) = current { span aria-hidden="true" { (if order.down { " ↓" } else { " ↑" }) } }
            }
        }
    }
}

/// Forms behind two buttons; `name` makes the browser open one at a time.
fn tools(folder: &Folder<'_>) -> Markup {
    let here = folder.base.url(folder.path, true);
    let listed = folder.rows.sum.count() > 0;
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
                    button formaction={ (here) "?replace=1" } { "Upload and replace" }
                    p { "A file whose name is taken is left out, unless you replace." }
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
                button.danger name="do" value="remove" { "Delete…" }
            }
            button.quiet type="reset" { "None" }
        }
    }
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
                @if !entry.is_virtual() {
                    time datetime=(date::rfc3339(entry.node.modified)) { (date::short(entry.node.modified)) }
                }
            }
            td.act {
                @if !entry.is_virtual() && (entry.rights.has(Verb::Delete) || entry.rights.has(Verb::Rename)) {
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
                    button.danger name="do" value="remove" { "Delete…" }
                }
            }
        }
    }
}

/// `184,320 bytes`
fn exact(bytes: u64) -> String {
    thousands(bytes) + if bytes == 1 { " byte" } else { " bytes" }
}

/// `184,320`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
    use crate::hub::Node;

    #[test]
    fn a_name_cannot_become_markup() {
        let path = TreePath::parse("/<script>alert(1)").unwrap();
        let base = Base::default();
        let node = Node { name: "<u>".into(), kind: NodeKind::File, size: 1, modified: 0, tag: 1 };
        let entry = Entry { path: path.join("<u>").unwrap(), node, rights: Verbs::EDIT };
        let sum = Sum { folders: 1, files: 2_000, bytes: 4096 };
        let page = Page { entries: vec![entry], sum, ..Page::default() };
        let folder = Folder {
            base: &base,
            path: &path,
            who: Some("<b>"),
            rights: Verbs::EDIT,
            order: Order::read(None, None),
            rows: &page,
            denied: false,
            notice: Some("<i>".into()),
        };
        let text = super::folder(&folder).into_string() + &confirm(&base, &path, None, &["<u>"], "<s>").into_string();
        let text = text + &taken(&base, &path, None, 1, &["<u>".into()]).into_string();
        for markup in ["<script", "<b>", "<i>", "<u>", "<s>"] {
            assert!(!text.contains(markup), "{markup}");
        }
        assert!(text.contains("1 folder, 2,000 files, 4 KiB"));
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
