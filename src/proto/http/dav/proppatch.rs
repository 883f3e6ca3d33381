//! `PROPPATCH` (RFC 4918 §9.2): what a client keeps beside a file, set and removed together or not at all.

use hyper::StatusCode;

use crate::error::Kind;
use crate::hub::property::SetProperties;
use crate::hub::{Micros, NodeKind, TreePath, Verb};
use crate::proto::http::body::Outgoing;
use crate::proto::http::date;
use crate::proto::http::dav;
use crate::proto::http::dav::live::Live;
use crate::proto::http::dav::xml::{Element, Name};
use crate::proto::http::reply::{Answer, Refusal};
use crate::proto::http::visit::Visit;

/// Windows says by this when a file was changed (MS-WDV §2.2); it is kept as the others are, and obeyed.
const WINDOWS_MODIFIED: (&str, &str) = ("urn:schemas-microsoft-com:", "Win32LastModifiedTime");

/// What is asked for, in order.
#[derive(Default)]
struct Update {
    changes: Vec<(Name, Option<String>)>,
    modified: Option<Micros>,
    /// Names that are the server's own.
    refused: Vec<Name>,
}

/// Answers `PROPPATCH`.
///
/// # Errors
/// Those of the hub; 400 and 413 for the body.
pub async fn answer(visit: &mut Visit<'_>, path: &TreePath, most: usize) -> Answer {
    visit.caller.allow(Verb::Overwrite, path)?;
    let body = dav::body(visit, most).await?;
    let update = Update::read(body.as_ref())?;
    let folder = visit.caller.stat(path).await.is_ok_and(|entry| entry.node.kind == NodeKind::Folder);
    let url = visit.rules.base.url(path, folder);
    if !update.refused.is_empty() {
        let own = |name: &Name| update.refused.contains(name);
        return Ok(update.says(&url, |name| match own(name) {
            true => (StatusCode::FORBIDDEN, Some("<D:cannot-modify-protected-property/>")),
            false => (StatusCode::FAILED_DEPENDENCY, None),
        }));
    }
    let kept = update.changes.iter().filter(|(name, _)| Live::of(name).is_none());
    let act = SetProperties {
        path: path.clone(),
        changes: kept.map(|(name, value)| (name.key(), value.clone())).collect(),
        modified: update.modified,
    };
    match visit.caller.perform(act).await {
        Ok(()) => Ok(update.says(&url, |_| (StatusCode::OK, None))),
        Err(error) if error.kind() == Kind::OverQuota => {
            Ok(update.says(&url, |_| (StatusCode::INSUFFICIENT_STORAGE, None)))
        }
        Err(error) => Err(error.into()),
    }
}

impl Update {
    fn read(body: Option<&Element>) -> Result<Self, Refusal> {
        let bad = || Refusal::bad("the body is not a propertyupdate with set and remove");
        let root = body.filter(|root| root.name.in_dav() == Some("propertyupdate")).ok_or_else(bad)?;
        let mut update = Self::default();
        for step in root.children() {
            let set = match step.name.in_dav() {
                Some("set") => true,
                Some("remove") => false,
                // RFC 4918 §17: what is not known does not count.
                _ => continue,
            };
            for property in step.child("prop").ok_or_else(bad)?.children() {
                update.add(property, set);
            }
        }
        if update.changes.is_empty() { Err(bad()) } else { Ok(update) }
    }

    fn add(&mut self, property: &Element, set: bool) {
        let name = property.name.clone();
        let is_time = Live::of(&name) == Some(Live::LastModified);
        if set && (is_time || (name.space.as_str(), name.local.as_str()) == WINDOWS_MODIFIED) {
            let seconds = date::parse(&property.text());
            self.modified = seconds.and_then(|seconds| seconds.checked_mul(1_000_000)).or(self.modified);
            if is_time && seconds.is_none() {
                self.refused.push(name.clone());
            }
        } else if Live::of(&name).is_some() {
            self.refused.push(name.clone());
        }
        self.changes.push((name, set.then(|| property.whole())));
    }

    /// The multistatus with what became of each.
    fn says<'a>(
        &self,
        url: &str,
        became: impl Fn(&Name) -> (StatusCode, Option<&'a str>),
    ) -> hyper::Response<Outgoing> {
        let mut out = format!("{}<D:response><D:href>{url}</D:href>", dav::PROLOGUE);
        let mut groups: Vec<((StatusCode, Option<&str>), String)> = Vec::new();
        for (name, _) in &self.changes {
            let outcome = became(name);
            if let Some((_, names)) = groups.iter_mut().find(|(known, _)| *known == outcome) {
                name.write_empty(names);
                continue;
            }
            let mut names = String::new();
            name.write_empty(&mut names);
            groups.push((outcome, names));
        }
        for ((status, because), names) in groups {
            dav::propstat(&mut out, &names, status, because);
        }
        out.push_str("</D:response>");
        out.push_str(dav::EPILOGUE);
        dav::multistatus(Outgoing::whole(out))
    }
}
