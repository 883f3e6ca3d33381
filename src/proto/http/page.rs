//! Our own pages: script-free HTML that works in any browser, one style sheet, nothing from elsewhere.

use std::sync::LazyLock;

use hyper::{Response, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::hub::{Entry, NodeKind, TreePath, Verb, Verbs};
use crate::proto::http::body::Outgoing;
use crate::proto::http::{date, reply, target};
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
const SYMBOLS: &str = r#"<svg hidden><symbol id="i-folder" viewBox="0 0 24 24"><path d="M3 6.5A1.5 1.5 0 0 1 4.5 5h4.8l2.2 2.5h8A1.5 1.5 0 0 1 21 9v8.5a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 17.5z"/></symbol><symbol id="i-file" viewBox="0 0 24 24"><path d="M6.5 3h7.3L19 8.2v11.3a1.5 1.5 0 0 1-1.5 1.5h-11A1.5 1.5 0 0 1 5 19.5v-15A1.5 1.5 0 0 1 6.5 3zm6.8 1.3v4.4h4.4z"/></symbol></svg>"#;

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
    pub path: &'a TreePath,
    pub who: Option<&'a str>,
    pub rights: Verbs,
    /// `None` when the folder is too large to be sorted.
    pub order: Option<Order>,
    pub empty: bool,
    /// The caller may add and not look.
    pub denied: bool,
    pub notice: Option<String>,
}

/// The style sheet.
pub fn style() -> Response<Outgoing> {
    let mut response = reply::typed(Outgoing::whole(STYLE), "text/css; charset=utf-8");
    reply::set(&mut response, header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    response
}

fn shell(title: &str, who: Option<&str>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Stoa" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(*STYLE_URL);
            }
            body {
                header.bar {
                    a.brand href="/" { (PreEscaped(LOGO)) span { "Stoa" } }
                    @if let Some(name) = who {
                        form.account method="post" action="/-/logout" {
                            span.who { (name) }
                            button.quiet { "Sign out" }
                        }
                    }
                }
                (main)
            }
        }
    }
}

/// The sign-in page.
pub fn login(next: &str, message: Option<&str>) -> Markup {
    shell(
        "Sign in",
        None,
        &html! {
            main.narrow {
                form.card method="post" action="/-/login" {
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
pub fn refusal(status: StatusCode, text: &str, who: Option<&str>) -> Markup {
    let title = status.canonical_reason().unwrap_or("Error");
    shell(
        title,
        who,
        &html! {
            main.narrow {
                section.card {
                    p.code { (status.as_u16()) }
                    h1 { (title) }
                    p { (sentence(text)) }
                    nav.actions {
                        a.button href="/" { "Go to the start" }
                        @if who.is_none() && status != StatusCode::TOO_MANY_REQUESTS { a.button href="/-/login" { "Sign in" } }
                    }
                }
            }
        },
    )
}

/// The house's words begin small and end open; on a page they are a sentence.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}

/// A folder's page without its rows: what comes before them, and after.
pub fn folder(folder: &Folder<'_>) -> (String, String) {
    let name = if folder.path.is_root() { "Files" } else { folder.path.name() };
    let page = shell(
        name,
        folder.who,
        &html! {
            (PreEscaped(SYMBOLS))
            main {
                (crumbs(folder.path))
                @if let Some(text) = &folder.notice { p.notice role="status" { (text) } }
                @if folder.denied {
                    p.hint { "You may add files here, but not see what is in it." }
                } @else if folder.empty {
                    p.hint { "This folder is empty." }
                } @else {
                    (table(folder))
                }
                @if folder.rights.has(Verb::Create) { (tools(folder)) }
            }
        },
    )
    .into_string();
    match page.split_once(ROWS) {
        Some((head, tail)) => (head.to_owned(), tail.to_owned()),
        None => (page, String::new()),
    }
}

fn crumbs(path: &TreePath) -> Markup {
    let mut here = TreePath::root();
    let mut links = Vec::new();
    for part in path.parts() {
        here = here.join(part).unwrap_or(here);
        links.push((part.to_owned(), target::url(&here, true)));
    }
    let last = links.len();
    html! {
        nav.crumbs aria-label="Folder" {
            @if last == 0 { h1 { "Files" } } @else { a href="/" { "Files" } }
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
                (column(folder.order, "name", "Name", "name"))
                (column(folder.order, "size", "Size", "size"))
                (column(folder.order, "time", "Changed (UTC)", "time"))
                th.act { span.unseen { "Delete" } }
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

fn tools(folder: &Folder<'_>) -> Markup {
    let here = target::url(folder.path, true);
    html! {
        section.tools {
            form.tool method="post" action=(here) enctype="multipart/form-data" {
                label for="file" { "Add files" }
                input id="file" type="file" name="file" multiple required;
                button.primary { "Upload" }
            }
            form.tool method="post" action=(here) {
                label for="name" { "New folder" }
                input id="name" name="name" maxlength="255" placeholder="Name" autocomplete="off" required;
                button name="do" value="folder" { "Create" }
            }
        }
    }
}

/// Rows of a folder.
pub fn rows(entries: &[Entry]) -> String {
    html! { @for entry in entries { (row(entry)) } }.into_string()
}

fn row(entry: &Entry) -> Markup {
    let folder = entry.node.kind == NodeKind::Folder;
    let name = entry.path.name();
    let url = target::url(&entry.path, folder);
    let parent = entry.path.parent().map_or_else(|| "/".to_owned(), |parent| target::url(&parent, true));
    html! {
        tr {
            td.name {
                a.(if folder { "folder" } else { "file" }) href=(url) {
                    svg.icon aria-hidden="true" { use href=(if folder { "#i-folder" } else { "#i-file" }); }
                    span { (name) }
                }
            }
            td.size { @if !folder { (ByteSize(entry.node.size)) } }
            td.time { time datetime=(date::rfc3339(entry.node.modified)) { (date::short(entry.node.modified)) } }
            td.act {
                @if entry.rights.has(Verb::Delete) {
                    details.confirm {
                        summary aria-label={ "Delete " (name) } { "×" }
                        form method="post" action=(parent) {
                            input type="hidden" name="name" value=(name);
                            button.danger name="do" value="delete" { "Delete" }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_markup() {
        let path = TreePath::parse("/<script>alert(1)<!--rows-->").unwrap();
        let folder = Folder {
            path: &path,
            who: Some("<b>"),
            rights: Verbs::EDIT,
            order: Some(Order::read(None, None)),
            empty: false,
            denied: false,
            notice: Some("<i>".into()),
        };
        let (head, tail) = super::folder(&folder);
        assert!(head.ends_with("<tbody>") && tail.starts_with("</tbody>"));
        for text in ["<script", "<b>", "<i>"] {
            assert!(!head.contains(text) && !tail.contains(text), "{text}");
        }
        assert!(!login("\"><script>", None).into_string().contains("<script>"));
    }

    #[test]
    fn the_houses_words_become_sentences() {
        assert_eq!(sentence("the folder is not empty"), "The folder is not empty.");
        assert_eq!(sentence(""), "");
    }
}
