//! `Upload-Metadata`: what clients say of a file, and the place that comes of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::hub::TreePath;
use crate::proto::http::date;
use crate::proto::http::reply::Refusal;

/// Most pairs that are read.
const MOST: usize = 64;

/// What we read of it. Other names are a client's own: their values may be any bytes, and are nothing to us.
const OURS: [&str; 8] = ["filename", "folder", "lastModified", "modified", "name", "path", "relativePath", "sha256"];

/// Names and decoded values.
#[derive(Debug, Default)]
pub(super) struct Metadata(Vec<(String, String)>);

impl Metadata {
    /// Reads `name BASE64,name BASE64,flag`.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let mut pairs = Vec::new();
        for (number, pair) in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).enumerate() {
            if number == MOST {
                return Err(Refusal::bad("Upload-Metadata says too much"));
            }
            let (name, value) = pair.split_once(' ').unwrap_or((pair, ""));
            if !OURS.contains(&name) {
                continue;
            }
            let bytes = STANDARD.decode(value.trim()).ok();
            let Some(value) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) else {
                return Err(Refusal::bad(format!(
                    "Upload-Metadata: the value of `{}` is not base64 of UTF-8",
                    name.escape_debug()
                )));
            };
            pairs.push((name.to_owned(), value));
        }
        Ok(Self(pairs))
    }

    /// A value; `None` when nothing, or JavaScript's nothing, is said.
    fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        found.filter(|value| !matches!(*value, "" | "null" | "undefined"))
    }

    /// A whole folder is uploaded: its folders are made.
    pub(super) fn is_nested(&self) -> bool {
        self.value("relativePath").is_some_and(|path| path.contains('/'))
    }

    /// Where the file goes. In a folder: `relativePath`, or the last part of `filename` or `name`. Without one: `path`, or `folder` and
    /// one of those. For a part the folder is enough.
    pub(super) fn path(&self, folder: Option<&TreePath>, part: bool) -> Result<TreePath, Refusal> {
        let folder = match (folder, self.value("folder")) {
            (Some(folder), _) => Some(folder.clone()),
            (None, Some(text)) => Some(TreePath::parse(text)?),
            (None, None) => None,
        };
        match folder {
            Some(folder) if part => Ok(folder),
            Some(folder) => self.inside(folder),
            None => match self.value("path") {
                Some(text) => {
                    let path = TreePath::parse(text)?;
                    Ok(if part { path.parent().unwrap_or(path) } else { path })
                }
                None => Err(Refusal::bad(
                    "say where the upload goes: POST to the folder's URL, or give `path` in Upload-Metadata",
                )),
            },
        }
    }

    fn inside(&self, folder: TreePath) -> Result<TreePath, Refusal> {
        if let Some(text) = self.value("relativePath") {
            let text = text.strip_prefix('/').unwrap_or(text);
            return Ok(text.split('/').try_fold(folder, |path, name| path.join(name))?);
        }
        let name = self.value("filename").or_else(|| self.value("name"));
        let name = name.ok_or_else(|| Refusal::bad("a name is missing: give `filename` in Upload-Metadata"))?;
        // Some programs send the path the file had on its own machine.
        let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
        Ok(folder.join(last)?)
    }

    /// Modification time: `modified` as `X-Modified` of a `PUT`, or `lastModified` in milliseconds as browsers have it.
    pub(super) fn modified(&self) -> Option<i64> {
        let millis = || self.value("lastModified")?.parse::<i64>().ok()?.checked_mul(1000);
        self.value("modified").and_then(date::wished).or_else(millis)
    }

    /// `sha256` in hexadecimal.
    pub(super) fn sha256(&self) -> Result<Option<[u8; 32]>, Refusal> {
        let Some(text) = self.value("sha256") else { return Ok(None) };
        let bad = || Refusal::bad("Upload-Metadata: `sha256` is not 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut sum = [0; 32];
        for (at, byte) in sum.iter_mut().enumerate() {
            let digits = text.get(at * 2..at * 2 + 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Some(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Metadata {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name} {}", STANDARD.encode(value))).collect();
        Metadata::read(&pairs.join(",")).unwrap()
    }

    fn at(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn the_place_comes_of_the_folder_and_the_name() {
        let folder = at("/scans");
        let place = |pairs: &[(&str, &str)], folder: Option<&TreePath>| {
            said(pairs).path(folder, false).map(|path| path.to_string())
        };
        assert_eq!(place(&[("filename", "a b.pdf")], Some(&folder)).unwrap(), "/scans/a b.pdf");
        assert_eq!(
            place(&[("name", "C:\\me\\a.pdf"), ("relativePath", "null")], Some(&folder)).unwrap(),
            "/scans/a.pdf"
        );
        assert_eq!(place(&[("relativePath", "x/y/a"), ("filename", "a")], Some(&folder)).unwrap(), "/scans/x/y/a");
        assert_eq!(place(&[("path", "/scans/z")], None).unwrap(), "/scans/z");
        assert_eq!(place(&[("folder", "/pub/"), ("filename", "q")], None).unwrap(), "/pub/q");
        assert_eq!(said(&[]).path(Some(&folder), true).unwrap(), folder);
        for bad in [
            &[("relativePath", "../x")][..],
            &[("relativePath", "a//b")],
            &[("filename", "..")],
            &[("filename", "a\0b")],
            &[],
        ] {
            assert!(place(bad, Some(&folder)).is_err(), "{bad:?}");
        }
        for bad in [&[("path", "/a/../b")][..], &[("path", "scans/a")], &[("filename", "x")], &[]] {
            assert!(place(bad, None).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["filename !!!", "filename /w==", &format!("path {}", "x".repeat(3))] {
            assert!(Metadata::read(text).is_err(), "{text}");
        }
        assert!(Metadata::read(&vec!["a YQ=="; 65].join(",")).is_err());
        for text in ["flag,filename YQ==", "digest /w==, filename YQ==", "note !!!,filename YQ==,"] {
            assert_eq!(Metadata::read(text).unwrap().value("filename"), Some("a"), "{text}");
        }
        assert!(said(&[("sha256", "12")]).sha256().is_err());
        assert_eq!(said(&[("sha256", &"0a".repeat(32))]).sha256().unwrap(), Some([10; 32]));
        assert_eq!(said(&[("lastModified", "1700000000123")]).modified(), Some(1_700_000_000_123_000));
    }
}
