//! `prefix`: the path of a proxy's name below which this server is shown.
//!
//! Handlers know nothing of it. It is taken off each request at the door, put before the places that headers lead to on the way out, and
//! before the links of what we write ourselves.

use std::sync::Arc;

use hyper::Uri;
use hyper::header::{CONTENT_LOCATION, HeaderMap, HeaderValue, LOCATION};

use crate::error::Result;
use crate::hub::TreePath;
use crate::proto::http::settings::invalid;
use crate::proto::http::target;

/// What stands before every path here; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Base(Arc<str>);

/// Where a request's path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To something of ours.
    In,
    /// To the prefix without a slash behind it, from where relative links would lead out.
    Slash,
    /// To nothing of ours.
    Out,
}

impl Base {
    /// Reads the setting; a slash at its end does not matter.
    ///
    /// # Errors
    /// `Invalid`: what could be written in more ways than one, or is no path.
    pub fn new(prefix: &str) -> Result<Self> {
        let bare = prefix.strip_suffix('/').unwrap_or(prefix);
        let plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        };
        let proper = match bare.split_once('/') {
            Some(("", rest)) => rest.split('/').all(plain),
            Some(_) => false,
            None => bare.is_empty(),
        };
        match proper {
            true => Ok(Self(bare.into())),
            false => Err(invalid(format!(
                "prefix: `{prefix}` is not a path of letters, digits and -._~; write prefix = \"/files\""
            ))),
        }
    }

    /// As it is written before a path: without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as a handler knows it; `None` outside.
    pub fn inside<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.0.is_empty() {
            return Some(path);
        }
        path.strip_prefix(self.as_str()).filter(|rest| rest.starts_with('/'))
    }

    /// Takes it off a request's URL.
    pub fn enter(&self, uri: &mut Uri) -> Way {
        // `*` is of no place.
        if self.0.is_empty() || uri.path() == "*" {
            return Way::In;
        }
        let (inside, way) = match self.inside(uri.path()) {
            Some(inside) => (inside, Way::In),
            None if uri.path() == self.as_str() => ("/", Way::Slash),
            None => return Way::Out,
        };
        let whole = uri.query().map_or_else(|| inside.to_owned(), |query| format!("{inside}?{query}"));
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = whole.parse().ok();
        match Uri::from_parts(parts) {
            Ok(inner) => {
                *uri = inner;
                way
            }
            Err(_) => Way::Out,
        }
    }

    /// Puts it before the places of ours that a response leads to.
    pub fn leave(&self, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        for name in [LOCATION, CONTENT_LOCATION] {
            let Some(value) = headers.get_mut(name) else { continue };
            let local = |text: &&str| text.starts_with('/') && !text.starts_with("//");
            let whole = value.to_str().ok().filter(local).map(|text| format!("{self}{text}"));
            if let Some(whole) = whole.and_then(|whole| HeaderValue::try_from(whole).ok()) {
                *value = whole;
            }
        }
    }

    /// The URL of a path of the tree as clients know it; a folder's ends in a slash.
    pub fn url(&self, path: &TreePath, folder: bool) -> String {
        format!("{self}{}", target::url(path, folder))
    }

    /// The path that cookies are for.
    pub fn cookie_path(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }

    /// Everything under this name is ours.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(prefix: &str, url: &str) -> (Way, String) {
        let mut uri: Uri = url.parse().unwrap();
        let way = Base::new(prefix).unwrap().enter(&mut uri);
        (way, uri.to_string())
    }

    #[test]
    fn only_plain_paths_are_prefixes() {
        for (prefix, written) in [("", ""), ("/", ""), ("/files", "/files"), ("/a-b/c_d/", "/a-b/c_d")] {
            assert_eq!(Base::new(prefix).unwrap().as_str(), written);
        }
        for prefix in ["files", "//", "/a//b", "/../a", "/a/.", "/a%20b", "/a b", "/a?b", "https://a/b", "/\u{e9}"] {
            assert!(Base::new(prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn what_is_below_it_comes_in_without_it() {
        let way = |url| entered("/files", url);
        assert_eq!(way("/files/a%20b?x=/files/"), (Way::In, "/a%20b?x=/files/".into()));
        assert_eq!(way("/files/files/"), (Way::In, "/files/".into()), "it is taken off once");
        assert_eq!(way("http://host/files/-/login"), (Way::In, "http://host/-/login".into()));
        assert_eq!(way("/files?sort=size"), (Way::Slash, "/?sort=size".into()));
        assert_eq!(way("*"), (Way::In, "*".into()));
        for url in ["/", "/filesystem", "/file", "/FILES/", "/%66iles/", "/-/login", "/x/files/"] {
            assert_eq!(way(url), (Way::Out, url.into()));
        }
        assert_eq!(entered("", "/files?a"), (Way::In, "/files?a".into()));
    }

    #[test]
    fn it_is_put_before_places_of_ours_alone() {
        let base = Base::new("/files").unwrap();
        for (place, led) in [
            ("/files/a", "/files/files/a"),
            ("/-/login?next=%2F", "/files/-/login?next=%2F"),
            ("https://a/b", "https://a/b"),
            ("//a/b", "//a/b"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, place.parse().unwrap());
            base.leave(&mut headers);
            assert_eq!(headers.get(LOCATION).unwrap(), led);
        }
        assert_eq!((base.url(&TreePath::root(), true).as_str(), base.cookie_path()), ("/files/", "/files"));
    }
}
