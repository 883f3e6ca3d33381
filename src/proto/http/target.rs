//! From a request's URL to a place: a path of the tree, or one of our own pages under `/-/`.
//!
//! Percent signs are decoded exactly once and strictly. What could mean one thing to a proxy and another to us (an encoded
//! slash, `..`, an empty part, NUL, bytes that are not UTF-8) is refused, never repaired.

use std::borrow::Cow;

use hyper::Uri;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::{Error, Kind, Result};
use crate::hub::TreePath;

/// Longest path and query together that is read.
pub const LONGEST_URI: usize = 8 << 10;

/// What a URL's path names.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// `*`, for `OPTIONS`.
    Everything,
    /// Ours, under `/-/`: the parts after it.
    Own(Vec<String>),
    /// A place in the tree; `folder` when the URL ended in a slash.
    Tree {
        /// Where.
        path: TreePath,
        /// The URL ended in a slash.
        folder: bool,
    },
}

/// What stays as it is in a path part we write: unreserved (RFC 3986 §2.3) and what is harmless beside it.
const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@').remove(b',');

/// Reads a URL's path.
///
/// # Errors
/// `Invalid`, saying what is wrong with it.
pub fn read(path: &str) -> Result<Target> {
    if path == "*" {
        return Ok(Target::Everything);
    }
    let (parts, folder) = parts(path)?;
    if parts.first().is_some_and(|first| first == "-") {
        return Ok(Target::Own(parts.into_iter().skip(1).map(Cow::into_owned).collect()));
    }
    let path = TreePath::parse(&format!("/{}", parts.join("/")))?;
    Ok(Target::Tree { path, folder })
}

/// Reads a URL's path where nothing is ours: a place, and whether the URL ended in a slash.
///
/// # Errors
/// As [`read`].
pub fn plain(path: &str) -> Result<(TreePath, bool)> {
    let (parts, folder) = parts(path)?;
    Ok((TreePath::parse(&format!("/{}", parts.join("/")))?, folder))
}

fn parts(path: &str) -> Result<(Vec<Cow<'_, str>>, bool)> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(bad("a URL's path starts with `/`"));
    };
    let folder = rest.is_empty() || rest.ends_with('/');
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Ok((Vec::new(), folder));
    }
    Ok((rest.split('/').map(decode).collect::<Result<_>>()?, folder))
}

/// One part between slashes, decoded and safe to be a name.
fn decode(part: &str) -> Result<Cow<'_, str>> {
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        let whole = byte != b'%'
            || (bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit())
                && bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit()));
        if !whole {
            return Err(bad("a `%` in a URL is followed by two hexadecimal digits"));
        }
    }
    let name = percent_decode_str(part).decode_utf8().map_err(|_| bad("the URL is not UTF-8"))?;
    match &*name {
        "" => Err(bad("the URL has an empty part (`//`)")),
        "." | ".." => Err(bad("the URL has a `.` or `..` part")),
        text if text.contains(['/', '\0']) => Err(bad("the URL has an encoded slash or NUL")),
        _ => Ok(name),
    }
}

fn bad(text: &'static str) -> Error {
    Error::new(Kind::Invalid, text)
}

/// The URL of a path of the tree; a folder's ends in a slash.
pub fn url(path: &TreePath, folder: bool) -> String {
    let mut text = String::new();
    for part in path.parts() {
        text.push('/');
        text.extend(utf8_percent_encode(part, KEEP));
    }
    if folder || text.is_empty() {
        text.push('/');
    }
    text
}

/// One name as a relative URL.
pub fn escape(name: &str) -> String {
    utf8_percent_encode(name, KEEP).to_string()
}

/// What a URL cannot hold as it is, and many clients write in `Destination` and `If` all the same.
const RAW: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// Reads a URL in a header. Signs that should have been encoded are taken for themselves; a user's name in it says nothing about the place.
pub fn reference(text: &[u8]) -> Option<Uri> {
    let text = std::str::from_utf8(text).ok()?.trim();
    utf8_percent_encode(text, RAW).to_string().parse().ok()
}

/// A place to go on to after signing in: a path of this server and nothing else.
pub fn local(next: &str) -> Option<&str> {
    let plain = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && next.len() <= LONGEST_URI
        && next.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    plain.then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_decoded_exactly_once() {
        let Target::Tree { path, folder } = read("/a%20b/%2525").unwrap() else { panic!("not in the tree") };
        assert_eq!((path.to_string().as_str(), folder), ("/a b/%25", false));
        assert_eq!(url(&path, false), "/a%20b/%2525");
        assert_eq!(read("/").unwrap(), Target::Tree { path: TreePath::root(), folder: true });
    }

    #[test]
    fn nothing_climbs_out_in_any_spelling() {
        for path in [
            "/..",
            "/../etc",
            "/a/../../b",
            "/%2e%2e/etc",
            "/%2E%2e/",
            "/a/.%2e/b",
            "/./a",
            "/a%2fb",
            "/a%2Fb",
            "/a//b",
            "//a",
            "/a%00b",
            "/%",
            "/%2",
            "/%zz",
            "/%ff",
            "a",
            "/%c0%ae%c0%ae/etc",
        ] {
            assert!(read(path).is_err(), "{path}");
        }
    }

    #[test]
    fn our_own_pages_are_never_files() {
        assert_eq!(read("/-/login").unwrap(), Target::Own(vec!["login".into()]));
        assert_eq!(read("/%2d/login").unwrap(), Target::Own(vec!["login".into()]));
        assert!(matches!(read("/-a/login").unwrap(), Target::Tree { .. }));
    }

    #[test]
    fn a_header_may_hold_what_a_url_may_not() {
        for (text, path) in [
            ("/a b/ć.txt", "/a%20b/%C4%87.txt"),
            ("http://ann@host/a%20b.txt", "/a%20b.txt"),
            ("http://ann:secret@host:8080/日本/", "/%E6%97%A5%E6%9C%AC/"),
            ("/a{1}|<2>^`\"\\.txt", "/a%7B1%7D%7C%3C2%3E%5E%60%22%5C.txt"),
            (" /a ", "/a"),
        ] {
            assert_eq!(reference(text.as_bytes()).unwrap().path(), path, "{text}");
        }
        for text in [&b""[..], b"\xff", b"http://a b/c", b"http://"] {
            assert!(reference(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn going_on_after_sign_in_stays_on_this_server() {
        assert_eq!(local("/scans/?format=json"), Some("/scans/?format=json"));
        for next in ["//evil.example", "https://evil.example", "/\\evil.example", "", "/a\r\nb", "/a b"] {
            assert_eq!(local(next), None, "{next}");
        }
    }
}
