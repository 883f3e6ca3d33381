//! The `If` header (RFC 4918 §10.4): what must be so of locks and contents, and the lock tokens shown with it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use hyper::StatusCode;
use hyper::header::HeaderName;

use crate::error::Kind;
use crate::hub::TreePath;
use crate::proto::http::condition;
use crate::proto::http::reply::Refusal;
use crate::proto::http::target::{self, Target};
use crate::proto::http::visit::Visit;

const IF: HeaderName = HeaderName::from_static("if");

/// Most conditions in one header, and most resources they name.
const MOST: usize = 256;

/// Conditions that must all hold, of one resource.
#[derive(Debug, PartialEq, Eq)]
struct List<'a> {
    /// The resource's URL; `None`: the request's own.
    tag: Option<&'a str>,
    conditions: Vec<Condition<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Condition<'a> {
    not: bool,
    state: State<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum State<'a> {
    /// A lock with this token covers it.
    Token(&'a str),
    /// Its content has this entity tag.
    Tag(&'a str),
}

/// What is there of a resource that conditions name.
struct Found {
    tokens: Vec<String>,
    etag: Option<String>,
}

/// Judges the header and lets the caller show its tokens from here on. Without the header nothing happens.
///
/// # Errors
/// 400 for a header that cannot be read, 412 when none of its lists holds.
pub async fn judge(visit: &mut Visit<'_>, path: &TreePath) -> Result<(), Refusal> {
    let Some(value) = visit.headers().get(&IF) else { return Ok(()) };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| unreadable())?;
    let lists = read(text).ok_or_else(unreadable)?;
    let mut found: HashMap<Option<&str>, Option<Found>> = HashMap::new();
    let mut holds = false;
    for list in &lists {
        let there = match found.entry(list.tag) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(look(visit, path, list.tag).await?),
        };
        let there = there.as_ref();
        holds = holds || list.conditions.iter().all(|condition| condition.holds(there));
    }
    if !holds {
        return Err(Refusal::precondition());
    }
    let tokens = lists.iter().flat_map(|list| &list.conditions).filter_map(|condition| match condition.state {
        State::Token(token) => Some(token.to_owned()),
        State::Tag(_) => None,
    });
    visit.caller = visit.caller.clone().holding(tokens.collect());
    Ok(())
}

/// The tokens of a header, in order, for a `LOCK` that refreshes.
pub fn tokens(visit: &Visit<'_>) -> Vec<String> {
    let lists = visit
        .headers()
        .get(&IF)
        .and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
        .and_then(read)
        .unwrap_or_default();
    let states = lists.into_iter().flat_map(|list| list.conditions).map(|condition| condition.state);
    let tokens = states.filter_map(|state| match state {
        State::Token(token) => Some(token.to_owned()),
        State::Tag(_) => None,
    });
    tokens.collect()
}

impl Condition<'_> {
    fn holds(&self, there: Option<&Found>) -> bool {
        let is = there.is_some_and(|there| match self.state {
            State::Token(token) => there.tokens.iter().any(|held| held == token),
            State::Tag(tag) => there.etag.as_deref().is_some_and(|own| condition::names_version(tag, own)),
        });
        is != self.not
    }
}

/// What is at a resource; `None` for one that is not of this tree.
async fn look(visit: &Visit<'_>, own: &TreePath, tag: Option<&str>) -> Result<Option<Found>, Refusal> {
    let path = match tag {
        None => own.clone(),
        Some(tag) => match place(visit, tag) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    let etag = match visit.caller.stat(&path).await {
        Ok(entry) => Some(condition::etag(entry.node.tag)),
        Err(error) if error.kind() == Kind::Unavailable => return Err(error.into()),
        Err(_) => None,
    };
    let tokens = visit.caller.hub().locks_on(&path).into_iter().map(|row| row.token).collect();
    Ok(Some(Found { tokens, etag }))
}

fn place(visit: &Visit<'_>, tag: &str) -> Option<TreePath> {
    let uri = target::reference(tag.as_bytes())?;
    match target::read(visit.here(&uri)?).ok()? {
        Target::Tree { path, .. } => Some(path),
        Target::Everything | Target::Own(_) => None,
    }
}

fn unreadable() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "the If header cannot be read; see RFC 4918 §10.4")
}

/// The lists of a header; `None` when it is not one.
fn read(text: &str) -> Option<Vec<List<'_>>> {
    let mut lists: Vec<List<'_>> = Vec::new();
    let mut rest = text.trim_start();
    let mut tag = None;
    let mut count = 0;
    while !rest.is_empty() {
        if rest.starts_with('<') {
            // Either all lists have a resource or none has; each resource has a list.
            let bare = lists.iter().any(|list| list.tag.is_none());
            let dangling = tag.is_some() && lists.last().is_none_or(|list| list.tag != tag);
            if bare || dangling {
                return None;
            }
            let (uri, after) = between(rest, '<', '>')?;
            (tag, rest) = (Some(uri), after);
            continue;
        }
        let mut inside = rest.strip_prefix('(')?.trim_start();
        let mut conditions = Vec::new();
        while !inside.starts_with(')') {
            count += 1;
            if count > MOST {
                return None;
            }
            let (condition, after) = condition_of(inside)?;
            conditions.push(condition);
            inside = after;
        }
        if conditions.is_empty() {
            return None;
        }
        lists.push(List { tag, conditions });
        rest = inside.strip_prefix(')')?.trim_start();
    }
    let complete = tag.is_none() || lists.last().is_some_and(|list| list.tag == tag);
    (complete && !lists.is_empty()).then_some(lists)
}

fn condition_of(text: &str) -> Option<(Condition<'_>, &str)> {
    let not = text.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("not"));
    let text = if not { text.get(3..)?.trim_start() } else { text };
    let (state, rest) = match text.chars().next()? {
        '<' => between(text, '<', '>').map(|(token, rest)| (State::Token(token), rest))?,
        '[' => between(text, '[', ']').map(|(tag, rest)| (State::Tag(tag.trim()), rest))?,
        _ => return None,
    };
    Some((Condition { not, state }, rest))
}

fn between(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    let (inside, rest) = text.strip_prefix(open)?.split_once(close)?;
    (!inside.is_empty()).then_some((inside, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_standard_writes_them() {
        let lists = read("(<urn:a> [\"x\"]) (Not <urn:b>[W/\"y\"])").unwrap();
        assert_eq!(lists.len(), 2);
        assert_eq!(lists[0].conditions[0], Condition { not: false, state: State::Token("urn:a") });
        assert_eq!(lists[1].conditions[0], Condition { not: true, state: State::Token("urn:b") });
        assert_eq!(lists[1].conditions[1], Condition { not: false, state: State::Tag("W/\"y\"") });
        let lists = read("</a> (<urn:a>) ([\"x\"]) <http://h/b> (not <DAV:no-lock>)").unwrap();
        assert_eq!(lists.iter().map(|list| list.tag).collect::<Vec<_>>(), [Some("/a"), Some("/a"), Some("http://h/b")]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            " ",
            "()",
            "(<urn:a>",
            "<urn:a>",
            "(urn:a)",
            "(<>)",
            "(Not)",
            "(<urn:a>) </b> (<urn:c>)",
            "</a> </b> (<urn:c>)",
            "</a> (<urn:b>) </c>",
            "(<urn:a>) x",
            "([\"a)",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&"(<urn:a>)".repeat(MOST + 1)), None);
    }

    #[test]
    fn a_condition_is_of_what_is_there() {
        let there = Found { tokens: vec!["urn:a".into()], etag: Some("\"x\"".into()) };
        let holds = |text: &str| read(text).unwrap()[0].conditions.iter().all(|one| one.holds(Some(&there)));
        assert!(holds("(<urn:a> [\"x\"])") && holds("(Not <DAV:no-lock>)"));
        assert!(!holds("(<urn:b>)") && !holds("(<urn:a> [\"y\"])") && !holds("(Not [\"x\"])") && !holds("([W/\"x\"])"));
    }
}
