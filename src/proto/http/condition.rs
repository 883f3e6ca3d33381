//! Conditional requests, in the order of RFC 9110 §13.2.2.

use std::borrow::Cow;

use hyper::HeaderMap;
use hyper::header::{
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};

use crate::hub::{Micros, Node};
use crate::proto::http::coding::Coding;
use crate::proto::http::date;

/// A date names exactly one version only when the file was left alone for so long: within its second it could have been written twice
/// (RFC 9110 §8.8.2.2).
const STRONG_AFTER: Micros = 60_000_000;

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 412.
    Failed,
    /// Do it.
    Go,
    /// 304, for `GET` and `HEAD`.
    NotModified,
}

/// The strong `ETag` of a node.
pub fn etag(tag: u64) -> String {
    format!("\"{tag:016x}\"")
}

/// The strong `ETag` of a coded form of a file. It begins with the file's own, so that it names the version as well; `how` is whatever else
/// makes its bytes these.
pub fn coded_etag(file: &str, coding: Coding, how: &str) -> String {
    format!("{}-{}.{how}\"", file.trim_end_matches('"'), coding.name())
}

/// True when an entity tag is that of this version of a file, whichever form of it was sent.
pub fn names_version(tag: &str, file: &str) -> bool {
    let form = tag.strip_prefix(file.trim_end_matches('"')).and_then(|rest| rest.strip_suffix('"'));
    form.is_some_and(|form| match form.strip_prefix('-').and_then(|form| form.split_once('.')) {
        Some((coding, how)) => Coding::ALL.iter().any(|known| known.name() == coding) && !how.is_empty(),
        None => form.is_empty(),
    })
}

/// What names one form of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// Its entity tag.
    pub tag: String,
    /// That of the file itself.
    pub file: String,
    /// When it was changed last.
    pub modified: Micros,
}

impl Validator {
    /// A file's own.
    pub fn of(node: &Node) -> Self {
        let tag = etag(node.tag);
        Self { file: tag.clone(), tag, modified: node.modified }
    }
}

/// The fields of a request that make it conditional or partial. A field that comes on several lines is one list (RFC 9110 §5.3).
#[derive(Default)]
pub struct Conditions<'a> {
    pub if_match: Option<Cow<'a, [u8]>>,
    pub if_modified_since: Option<Cow<'a, [u8]>>,
    pub if_none_match: Option<Cow<'a, [u8]>>,
    pub if_range: Option<Cow<'a, [u8]>>,
    pub if_unmodified_since: Option<Cow<'a, [u8]>>,
    pub range: Option<Cow<'a, [u8]>>,
}

impl<'a> Conditions<'a> {
    /// Those of a request.
    pub fn of(headers: &'a HeaderMap) -> Self {
        Self {
            if_match: field(headers, &IF_MATCH),
            if_modified_since: field(headers, &IF_MODIFIED_SINCE),
            if_none_match: field(headers, &IF_NONE_MATCH),
            if_range: field(headers, &IF_RANGE),
            if_unmodified_since: field(headers, &IF_UNMODIFIED_SINCE),
            range: field(headers, &RANGE),
        }
    }

    /// Judges them against what is there (`None`: nothing); `reading` for `GET` and `HEAD`.
    pub fn judge(&self, there: Option<&Validator>, reading: bool) -> Verdict {
        let seconds = there.map(|form| date::seconds(form.modified));
        if let Some(list) = &self.if_match {
            if !there.is_some_and(|form| names(list, |tag| names_version(tag, &form.file), true)) {
                return Verdict::Failed;
            }
        } else if let Some(limit) = moment(self.if_unmodified_since.as_ref())
            && seconds.is_none_or(|modified| modified > limit)
        {
            return Verdict::Failed;
        }
        if let Some(list) = &self.if_none_match {
            // Who reads has this form or another; who writes means the version.
            let is = |form: &Validator, tag: &str| tag == form.tag || (!reading && names_version(tag, &form.file));
            if there.is_some_and(|form| names(list, |tag| is(form, tag), false)) {
                return if reading { Verdict::NotModified } else { Verdict::Failed };
            }
        } else if reading
            && let Some(limit) = moment(self.if_modified_since.as_ref())
            && seconds.is_some_and(|modified| modified <= limit)
        {
            return Verdict::NotModified;
        }
        Verdict::Go
    }

    /// The `Range` field as text.
    pub fn range(&self) -> Option<&str> {
        std::str::from_utf8(self.range.as_ref()?).ok()
    }

    /// May the `Range` field be honoured? Without `If-Range` always, with it only when it names exactly these bytes.
    pub fn range_holds(&self, there: &Validator, now: Micros) -> bool {
        let Some(value) = &self.if_range else { return true };
        let Ok(text) = std::str::from_utf8(value) else { return false };
        let text = text.trim();
        if text.starts_with('"') {
            return text == there.tag;
        }
        // RFC 9110 §13.1.5: a date counts only as an exact match, and a weak tag never.
        let strong = now.saturating_sub(there.modified) >= STRONG_AFTER;
        strong && date::parse(text).is_some_and(|second| second == date::seconds(there.modified))
    }
}

fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = lines.next()?;
    Some(lines.fold(Cow::Borrowed(first), |all, more| Cow::Owned([&all, more].join(&b", "[..]))))
}

/// Judges a request's conditions against what is there (`None`: nothing); `reading` for `GET` and `HEAD`.
pub fn judge(headers: &HeaderMap, there: Option<&Node>, reading: bool) -> Verdict {
    Conditions::of(headers).judge(there.map(Validator::of).as_ref(), reading)
}

/// True when a list of entity tags has one that `is` meant, or is `*`. A weak one counts only where the comparison is not `strong`.
fn names(list: &[u8], is: impl Fn(&str) -> bool, strong: bool) -> bool {
    let Ok(list) = std::str::from_utf8(list) else { return false };
    list.trim() == "*"
        || list.split(',').map(str::trim).any(|tag| match tag.strip_prefix("W/") {
            Some(weak) => !strong && is(weak),
            None => is(tag),
        })
}

/// A date field, as seconds; a date that is not one is ignored (RFC 9110 §13.1.3).
fn moment(field: Option<&Cow<'_, [u8]>>) -> Option<i64> {
    date::parse(std::str::from_utf8(field?).ok()?)
}

/// True when the request carries any condition.
pub fn any(headers: &HeaderMap) -> bool {
    [IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE].iter().any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::NodeKind;

    fn node() -> Node {
        Node { name: "a".into(), kind: NodeKind::File, size: 9, modified: 784_111_777_500_000, tag: 0xab }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    const OURS: &str = "\"00000000000000ab\"";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: Micros = 1_784_111_777_000_000;
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    #[test]
    fn tags_win_over_dates() {
        let node = node();
        let both = headers(&[("if-none-match", "\"other\""), ("if-modified-since", SAME)]);
        assert_eq!(judge(&both, Some(&node), true), Verdict::Go);
        let both = headers(&[("if-match", OURS), ("if-unmodified-since", BEFORE)]);
        assert_eq!(judge(&both, Some(&node), true), Verdict::Go);
    }

    #[test]
    fn an_unchanged_file_is_not_sent_again() {
        let node = node();
        for pair in [("if-none-match", OURS), ("if-none-match", "W/\"00000000000000ab\""), ("if-modified-since", SAME)]
        {
            assert_eq!(judge(&headers(&[pair]), Some(&node), true), Verdict::NotModified, "{pair:?}");
        }
        assert_eq!(judge(&headers(&[("if-modified-since", BEFORE)]), Some(&node), true), Verdict::Go);
    }

    #[test]
    fn a_write_onto_something_else_than_expected_fails() {
        let node = node();
        assert_eq!(judge(&headers(&[("if-match", "\"other\"")]), Some(&node), false), Verdict::Failed);
        assert_eq!(judge(&headers(&[("if-match", "W/\"00000000000000ab\"")]), Some(&node), false), Verdict::Failed);
        assert_eq!(judge(&headers(&[("if-match", "*")]), None, false), Verdict::Failed);
        assert_eq!(judge(&headers(&[("if-none-match", "*")]), Some(&node), false), Verdict::Failed);
        assert_eq!(judge(&headers(&[("if-none-match", "*")]), None, false), Verdict::Go);
        assert_eq!(judge(&headers(&[("if-unmodified-since", BEFORE)]), Some(&node), false), Verdict::Failed);
    }

    #[test]
    fn a_range_needs_exactly_the_same_content() {
        let node = Validator::of(&node());
        assert!(Conditions::of(&headers(&[])).range_holds(&node, LATER));
        assert!(Conditions::of(&headers(&[("if-range", OURS)])).range_holds(&node, LATER));
        assert!(Conditions::of(&headers(&[("if-range", SAME)])).range_holds(&node, LATER));
        for value in ["\"other\"", "W/\"00000000000000ab\"", BEFORE, "nonsense"] {
            assert!(!Conditions::of(&headers(&[("if-range", value)])).range_holds(&node, LATER), "{value}");
        }
    }

    #[test]
    fn a_date_within_the_last_minute_may_name_two_versions() {
        let there = Validator::of(&node());
        let holds = |now| Conditions::of(&headers(&[("if-range", SAME)])).range_holds(&there, now);
        assert!(!holds(there.modified) && !holds(there.modified + STRONG_AFTER - 1));
        assert!(!holds(there.modified - 9 * STRONG_AFTER), "a time that is still to come");
        assert!(holds(there.modified + STRONG_AFTER));
    }

    #[test]
    fn whoever_sends_back_the_tag_of_a_coded_form_means_the_version() {
        let node = node();
        let file = Validator::of(&node);
        for coding in Coding::ALL {
            let tag = coded_etag(OURS, coding, "4");
            let form = Validator { tag: tag.clone(), ..file.clone() };
            let judge = |name: &'static str, text: &str, there: &Validator, reading| {
                Conditions::of(&headers(&[(name, text)])).judge(Some(there), reading)
            };
            for list in [tag.clone(), format!("\"x\", {tag}")] {
                assert_eq!(judge("if-match", &list, &file, false), Verdict::Go, "a page saves what it was given");
                assert_eq!(judge("if-match", &list, &form, true), Verdict::Go);
                assert_eq!(judge("if-none-match", &list, &form, true), Verdict::NotModified);
                assert_eq!(judge("if-none-match", &list, &file, true), Verdict::Go, "another form of it");
                assert_eq!(judge("if-none-match", &list, &file, false), Verdict::Failed);
            }
            assert_eq!(judge("if-match", &format!("W/{tag}"), &file, false), Verdict::Failed);
            assert_eq!(judge("if-none-match", &format!("W/{tag}"), &form, true), Verdict::NotModified);
            assert_eq!(judge("if-match", OURS, &form, true), Verdict::Go);
            let holds = |text: &str| Conditions::of(&headers(&[("if-range", text)])).range_holds(&form, LATER);
            assert!(holds(&tag) && !holds(OURS));
            let newer = Validator { file: "\"00000000000000ac\"".into(), ..file.clone() };
            assert_eq!(judge("if-match", &tag, &newer, false), Verdict::Failed);
        }
        for tag in [
            "\"00000000000000ab-\"",
            "\"00000000000000ab-lzma.4\"",
            "\"00000000000000ab-gzip\"",
            "\"00000000000000abc\"",
            "\"\"",
            "x",
        ] {
            assert!(!names_version(tag, OURS), "{tag}");
        }
    }
}
