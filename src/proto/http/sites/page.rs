//! A site's folders as lists, and its failures where it brings no page for them: whole in themselves, for nothing of ours is under
//! a site's names.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Response, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::hub::{Entry, NodeKind, TreePath};
use crate::proto::http::base::Base;
use crate::proto::http::body::Outgoing;
use crate::proto::http::page::sentence;
use crate::proto::http::pager::Page;
use crate::proto::http::shown::shown;
use crate::proto::http::{date, reply, target};
use crate::units::ByteSize;

const STYLE: &str = include_str!("../../../../web/site.css");

/// Nothing but this style, by its hash.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
});

fn page(title: &str, main: &Markup) -> Response<Outgoing> {
    let mut response = reply::html(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (main) }
        }
    });
    reply::set(&mut response, header::CONTENT_SECURITY_POLICY, &POLICY);
    response
}

/// A page that says no.
pub fn refusal(base: &Base, status: StatusCode, text: &str) -> Response<Outgoing> {
    let title = status.canonical_reason().unwrap_or("Error");
    let mut response = page(
        title,
        &html! {
            main.refusal {
                p.code { (status.as_u16()) }
                h1 { (title) }
                p { (sentence(text)) }
                p { a href={ (base) "/" } { "Start page" } }
            }
        },
    );
    *response.status_mut() = status;
    response
}

/// A folder's list; `path` is that of the site.
pub fn folder(path: &TreePath, rows: &Page) -> Response<Outgoing> {
    let title = if path.is_root() { "Index".to_owned() } else { format!("Index of {path}/") };
    page(
        &title,
        &html! {
            main {
                h1 { (crumbs(path)) }
                @if rows.entries.is_empty() { p.soft { "This folder is empty." } } @else {
                    table {
                        thead { tr { th { "Name" } th.size { "Size" } th.time { "Changed (UTC)" } } }
                        tbody { @for entry in &rows.entries { (row(entry)) } }
                    }
                }
                p.soft {
                    @if let Some(query) = &rows.previous { a href=(query) rel="prev" { "Previous" } " " }
                    @if let Some(query) = &rows.next { a href=(query) rel="next" { "Next" } }
                }
            }
        },
    )
}

/// The way up, in relative links.
fn crumbs(path: &TreePath) -> Markup {
    let parts: Vec<&str> = path.parts().collect();
    let last = parts.len();
    html! {
        @if last == 0 { "Index" } @else {
            a href={ "./" ("../".repeat(last)) } { "Index" }
            @for (at, name) in parts.iter().enumerate() {
                " / "
                @if at + 1 == last { (name) } @else { a href={ "./" ("../".repeat(last - at - 1)) } { (name) } }
            }
        }
    }
}

fn row(entry: &Entry) -> Markup {
    let folder = entry.node.kind == NodeKind::Folder;
    let (name, slash) = (entry.path.name(), if folder { "/" } else { "" });
    html! {
        tr {
            // With `./`, a name with a colon is no scheme.
            td { a href={ "./" (target::escape(name)) (slash) } { (shown(name)) (slash) } }
            td.size { @if !folder { (ByteSize(entry.node.size)) } }
            td.time { @if !entry.is_virtual() { (date::short(entry.node.modified)) } }
        }
    }
}
