//! Conditional requests, in the order of RFC 9110 §13.2.2.

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};

use crate::hub::{Micros, Node};
use crate::proto::http::date;

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

/// What names one form of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// The opaque tag in its quotes.
    pub tag: String,
    /// It names the content, not its bytes: they may be made anew.
    pub weak: bool,
    /// When it was changed last.
    pub modified: Micros,
}

impl Validator {
    /// A file's own.
    pub fn of(node: &Node) -> Self {
        Self { tag: etag(node.tag), weak: false, modified: node.modified }
    }

    /// The `ETag` header's value.
    pub fn etag(&self) -> String {
        format!("{}{}", if self.weak { "W/" } else { "" }, self.tag)
    }
}

/// Judges a request's conditions against what is there (`None`: nothing); `reading` for `GET` and `HEAD`.
pub fn judge(headers: &HeaderMap, there: Option<&Node>, reading: bool) -> Verdict {
    judge_form(headers, there.map(Validator::of).as_ref(), reading)
}

/// The same for one form of a file.
pub fn judge_form(headers: &HeaderMap, there: Option<&Validator>, reading: bool) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !matches(headers, &IF_MATCH, there, true) {
            return Verdict::Failed;
        }
    } else if let Some(limit) = moment(headers, &IF_UNMODIFIED_SINCE)
        && there.is_none_or(|form| date::seconds(form.modified) > limit)
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if matches(headers, &IF_NONE_MATCH, there, false) {
            return if reading { Verdict::NotModified } else { Verdict::Failed };
        }
    } else if reading
        && let Some(limit) = moment(headers, &IF_MODIFIED_SINCE)
        && there.is_some_and(|form| date::seconds(form.modified) <= limit)
    {
        return Verdict::NotModified;
    }
    Verdict::Go
}

/// May the `Range` header be honoured? Without `If-Range` always, with it only when it names exactly this content.
pub fn range_holds(headers: &HeaderMap, there: &Validator) -> bool {
    let Some(value) = headers.get(IF_RANGE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    let text = text.trim();
    if text.starts_with('"') {
        return !there.weak && text == there.tag;
    }
    // RFC 9110 §13.1.5: a date counts only as an exact match, and a weak tag never.
    date::parse(text).is_some_and(|second| second == date::seconds(there.modified))
}

/// True when any of the header's entity tags is what is there; `*` is anything at all.
fn matches(headers: &HeaderMap, name: &HeaderName, there: Option<&Validator>, strong: bool) -> bool {
    let Some(there) = there else { return false };
    let own = there.etag();
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|list| names(list, &own, strong))
}

/// True when a list of entity tags has this one, which may be weak, or is `*`.
pub fn names(list: &str, own: &str, strong: bool) -> bool {
    let (own, vague) = own.strip_prefix("W/").map_or((own, false), |own| (own, true));
    list.trim() == "*"
        || list.split(',').map(str::trim).any(|tag| match tag.strip_prefix("W/") {
            Some(weak) => !strong && weak == own,
            None => !(strong && vague) && tag == own,
        })
}

/// A date header, as seconds; a date that is not one is ignored (RFC 9110 §13.1.3).
fn moment(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    date::parse(headers.get(name)?.to_str().ok()?)
}

/// True when the request carries any condition.
pub fn any(headers: &HeaderMap) -> bool {
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE].iter().any(|name| headers.contains_key(name))
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
        assert!(range_holds(&headers(&[]), &node));
        assert!(range_holds(&headers(&[("if-range", OURS)]), &node));
        assert!(range_holds(&headers(&[("if-range", SAME)]), &node));
        for value in ["\"other\"", "W/\"00000000000000ab\"", BEFORE, "nonsense"] {
            assert!(!range_holds(&headers(&[("if-range", value)]), &node), "{value}");
        }
    }

    #[test]
    fn a_form_made_anew_each_time_is_the_same_content_and_not_the_same_bytes() {
        let form = Validator { tag: "\"ab-gzip\"".into(), weak: true, modified: 0 };
        for text in ["\"ab-gzip\"", "W/\"ab-gzip\""] {
            let verdict = |name| judge_form(&headers(&[(name, text)]), Some(&form), true);
            assert_eq!((verdict("if-none-match"), verdict("if-match")), (Verdict::NotModified, Verdict::Failed));
            assert!(!range_holds(&headers(&[("if-range", text)]), &form));
        }
        assert_eq!(form.etag(), "W/\"ab-gzip\"");
    }
}
