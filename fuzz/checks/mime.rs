//! A message on its way into a folder: parts, names and bytes. Every name is a plain one, no two are the same, no cut matters.

use stoa::hub::mail::dissect;

const MOST: usize = 8;

/// Panics when something is wrong.
pub fn check(bytes: &[u8]) {
    let (cut, message) = bytes.split_first().map_or((1, bytes), |(cut, rest)| (usize::from(*cut).max(1), rest));
    let files = dissect(message, message.len().max(1), MOST);
    assert_eq!(files, dissect(message, cut, MOST), "depends on the cut");
    assert!(files.len() <= MOST + 1);
    for (at, (name, _)) in files.iter().enumerate() {
        assert!(!name.is_empty() && name.len() <= 255 && name != "." && name != "..", "{name:?}");
        assert!(!name.contains(['/', '\\', '\0', '\r', '\n']), "{name:?}");
        assert!(files.iter().take(at).all(|(other, _)| !other.eq_ignore_ascii_case(name)), "{name:?} twice");
    }
}
