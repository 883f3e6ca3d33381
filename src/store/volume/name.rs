//! The one rule for names: how the bytes of a file name on the disk are shown as text, and what a typed name means.
//!
//! On the disk a name is any bytes but NUL and `/`. Every door, the catalog and the history work with text. The text of a name is:
//!
//! - the name itself, where it is UTF-8 in Unicode normalisation form C (NFC) and holds nothing that a door cannot carry;
//! - else each byte that cannot be carried is written as U+FFFD and two upper-case hexadecimal digits: a byte that is no UTF-8, a control
//!   character, a line separator, a character that XML does not have. A real U+FFFD that would read as such an escape is escaped too.
//!
//! This is reversible: [`bytes`] gives back what [`text`] was made from, and two names never have one text.
//!
//! Names that are canonically equivalent in Unicode are one name. A typed name is put into NFC ([`canonical`]). A name on the disk in
//! another form is shown under its NFC form, unless another entry of its folder has that: then it is shown with its combining characters
//! escaped, which is a name of its own (an *alias*).
//!
//! `docs/decisions/0005-names.md` gives the reasons.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc, is_nfc_quick};
use unicode_segmentation::UnicodeSegmentation;

/// Begins an escape.
const MARK: char = '\u{fffd}';

/// Bytes of [`MARK`] in UTF-8.
const MARK_BYTES: usize = 3;

/// The most bytes a name has on the disk (`NAME_MAX` of Linux).
pub const LONGEST_NAME: usize = 255;

/// The text of a name on the disk, reversible by [`bytes`].
#[must_use]
pub fn text(name: &[u8]) -> Cow<'_, str> {
    if name.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return String::from_utf8_lossy(name);
    }
    if let Ok(plain) = std::str::from_utf8(name)
        && is_plain(plain)
        && is_nfc(plain)
    {
        return plain.into();
    }
    let escaped = escape(name, |_| false);
    if is_nfc(&escaped) { escaped.into() } else { escape(name, is_unstable).into() }
}

/// The bytes on the disk that a canonical text stands for.
#[must_use]
pub fn bytes(text: &str) -> Cow<'_, [u8]> {
    if text.is_ascii() || !text.contains(MARK) {
        return text.as_bytes().into();
    }
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (before, from) = rest.split_at(at);
        name.extend_from_slice(before.as_bytes());
        let used = if let Some(byte) = escaped_byte(from) {
            name.push(byte);
            MARK_BYTES + 2
        } else {
            name.extend_from_slice(from.get(..MARK_BYTES).unwrap_or_default().as_bytes());
            MARK_BYTES
        };
        rest = from.get(used..).unwrap_or_default();
    }
    name.extend_from_slice(rest.as_bytes());
    name.into()
}

/// The one text of a name that somebody typed, in whatever normal form and with or without escapes.
#[must_use]
pub fn canonical(typed: &str) -> Cow<'_, str> {
    if is_plain_ascii(typed) || (is_plain(typed) && !typed.contains(MARK) && is_nfc(typed)) {
        return typed.into();
    }
    let composed: String = typed.nfc().collect();
    text(&bytes(&composed)).into_owned().into()
}

/// The text a name on the disk is shown with while no other entry of its folder has that, when it is not its own text: the name is UTF-8
/// in another normal form.
///
/// `None` also where that text is plain ASCII (a lookup of an ASCII name never has to search the folder), or too long to be a name.
#[must_use]
pub fn equivalent(name: &[u8]) -> Option<String> {
    if name.is_ascii() {
        return None;
    }
    let utf8 = std::str::from_utf8(name).ok()?;
    if is_nfc(utf8) {
        return None;
    }
    let composed: String = utf8.nfc().collect();
    (!composed.is_ascii() && composed.len() <= LONGEST_NAME).then(|| text(composed.as_bytes()).into_owned())
}

/// True for a text that stands for bytes in another normal form: it names an entry only while another one has the NFC form.
#[must_use]
pub fn is_alias(text: &str) -> bool {
    text.contains(MARK) && equivalent(&bytes(text)).is_some()
}

/// The NFC form of an alias; any other text as it is.
#[must_use]
pub fn without_alias(text: &str) -> Cow<'_, str> {
    match is_alias(text) {
        true => equivalent(&bytes(text)).map_or(Cow::Borrowed(text), Cow::Owned),
        false => text.into(),
    }
}

/// The longest beginning of a text that takes at most `most` bytes on the disk and ends between two characters as a reader sees them
/// (grapheme clusters); an escape is never cut.
#[must_use]
pub fn shortened(text: &str, most: usize) -> &str {
    let (mut taken, mut on_disk) = (0, 0);
    for piece in pieces(text) {
        on_disk += if escaped_byte(piece).is_some() { 1 } else { piece.len() };
        if on_disk > most {
            break;
        }
        taken += piece.len();
    }
    text.get(..taken).unwrap_or_default()
}

/// The escapes and the grapheme clusters of a text, in order. A cluster never takes in a part of an escape, whatever stands before it.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_escape = |at: &usize| rest.get(*at..).is_some_and(|from| escaped_byte(from).is_some());
        let len = match rest.match_indices(MARK).map(|(at, _)| at).find(is_escape) {
            Some(0) => MARK_BYTES + 2,
            next => rest.get(..next.unwrap_or(rest.len()))?.graphemes(true).next()?.len(),
        };
        let (piece, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(piece)
    })
}

/// Writes each byte that cannot be carried, and each character that `also` names, as an escape.
fn escape(name: &[u8], also: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        let valid = chunk.valid();
        for (at, letter) in valid.char_indices() {
            let looks_escaped = letter == MARK && escaped_byte(valid.get(at..).unwrap_or_default()).is_some();
            if looks_escaped || is_unsafe(letter) || also(letter) {
                letter.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_escape(&mut out, byte));
            } else {
                out.push(letter);
            }
        }
        chunk.invalid().iter().for_each(|byte| push_escape(&mut out, *byte));
    }
    out
}

fn push_escape(out: &mut String, byte: u8) {
    let _ = write!(out, "{MARK}{byte:02X}");
}

/// The byte of the escape that a text begins with.
fn escaped_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix(MARK)?.as_bytes().get(..2)?;
    let digit = |at: usize| match digits.get(at)? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let byte = digit(0)? << 4 | digit(1)?;
    // Printable ASCII is never escaped: no escape can stand for a slash, a dot or a reserved name.
    matches!(byte, 0x01..=0x1f | 0x7f..).then_some(byte)
}

fn is_plain_ascii(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Holds nothing that has to be escaped, the normal form aside.
fn is_plain(text: &str) -> bool {
    is_plain_ascii(text)
        || text.char_indices().all(|(at, letter)| match letter {
            MARK => escaped_byte(text.get(at..).unwrap_or_default()).is_none(),
            letter => !is_unsafe(letter),
        })
}

/// A character that some door cannot carry: controls (C0, DEL, C1), line separators, and what XML 1.0 does not have. NUL is left as it is,
/// to be refused.
fn is_unsafe(letter: char) -> bool {
    matches!(letter, '\u{1}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

/// A character that normalisation may change, move or join with another.
fn is_unstable(letter: char) -> bool {
    canonical_combining_class(letter) != 0 || is_nfc_quick(std::iter::once(letter)) != IsNormalized::Yes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces that are likely to meet in unpleasant ways.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let nasty: Vec<&[u8]> = vec![
            b"\xff",
            b"\x80",
            b"\xc0\xae",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xe2\x82",
            b"\n",
            b"\x1b[2J",
            b"\x7f",
            "\u{85}".as_bytes(),
            "\u{2028}".as_bytes(),
            "\u{ffff}".as_bytes(),
            "\u{fffd}".as_bytes(),
            "\u{fffd}0A".as_bytes(),
            "\u{fffd}2F".as_bytes(),
            "\u{fffd}fF".as_bytes(),
            b"0A",
            b"EF",
            b"A",
            b"e",
            "\u{301}".as_bytes(),
            "\u{316}".as_bytes(),
            "\u{e9}".as_bytes(),
            "\u{212b}".as_bytes(),
            "\u{212a}".as_bytes(),
            "\u{1100}".as_bytes(),
            "\u{1161}".as_bytes(),
            "\u{958}".as_bytes(),
            "\u{202e}".as_bytes(),
            "\u{1f469}\u{200d}\u{1f680}".as_bytes(),
            b"%2F",
            b"\\",
            b" ",
            b".",
        ];
        prop_oneof![
            proptest::sample::select(nasty).prop_map(<[u8]>::to_vec),
            any::<char>().prop_map(|letter| letter.to_string().into_bytes()),
            proptest::collection::vec(1_u8.., 1..4),
        ]
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(piece(), 0..12)
            .prop_map(|pieces| pieces.concat().into_iter().filter(|byte| !matches!(byte, 0 | b'/')).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn every_name_comes_back_from_its_text(name in name()) {
            let text = text(&name);
            prop_assert_eq!(&*bytes(&text), &name[..]);
            prop_assert_eq!(&*canonical(&text), &*text, "a text is its own canonical form");
            prop_assert!(!text.chars().any(is_unsafe));
            let decomposed: String = text.nfd().collect();
            prop_assert_eq!(&*canonical(&decomposed), &*text, "a client that decomposes names can send it back");
        }

        #[test]
        fn two_names_never_have_one_text(one in name(), other in name()) {
            prop_assert_eq!(text(&one) == text(&other), one == other);
        }

        #[test]
        fn typed_names_have_one_form(name in name()) {
            let typed = String::from_utf8_lossy(&name).into_owned();
            let once = canonical(&typed).into_owned();
            prop_assert_eq!(&*canonical(&once), once.as_str());
            for other in [typed.nfc().collect::<String>(), typed.nfd().collect()] {
                prop_assert_eq!(&*canonical(&other), once.as_str(), "equivalent spellings are one name");
            }
        }

        #[test]
        fn a_name_in_another_form_is_shown_as_it_would_be_typed(name in name()) {
            let Some(shown) = equivalent(&name) else { return Ok(()) };
            let decomposed: String = shown.nfd().collect();
            prop_assert_eq!(&*canonical(&decomposed), shown.as_str());
            let composed: String = std::str::from_utf8(&name).expect("only UTF-8 has equivalents").nfc().collect();
            prop_assert_eq!(&*bytes(&shown), composed.as_bytes());
            let alias = text(&name);
            prop_assert!(is_alias(&alias) && !is_alias(&shown));
            prop_assert_eq!(without_alias(&alias), shown);
        }

        #[test]
        fn a_shortened_name_is_a_name(name in name(), most in 0_usize..40) {
            let text = text(&name);
            let short = shortened(&text, most);
            prop_assert!(bytes(short).len() <= most && text.starts_with(short));
            prop_assert!(name.starts_with(&bytes(short)));
            if name.len() <= most {
                prop_assert_eq!(short, &*text);
            }
        }
    }

    #[test]
    fn a_letter_that_joins_the_next_does_not_swallow_an_escape() {
        // U+070F joins whatever follows it into one grapheme cluster.
        let shown = text(b"a\xdc\x8f\x7fb").into_owned();
        assert_eq!(shown, "a\u{70f}\u{fffd}7Fb");
        for (most, left) in [(5, &*shown), (4, "a\u{70f}\u{fffd}7F"), (3, "a\u{70f}"), (2, "a"), (1, "a"), (0, "")] {
            assert_eq!(shortened(&shown, most), left, "{most}");
        }
    }

    #[test]
    fn single_bytes_and_known_cases() {
        for byte in 1..=255_u8 {
            let shown = text(&[byte]).into_owned();
            match byte {
                b' '..=b'~' => assert_eq!(shown, char::from(byte).to_string()),
                _ => assert_eq!(shown, format!("\u{fffd}{byte:02X}")),
            }
        }
        for (name, shown) in [
            (&b"a\nb"[..], "a\u{fffd}0Ab"),
            (b"\xd1\x81\xff.doc", "\u{441}\u{fffd}FF.doc"),
            ("\u{fffd}".as_bytes(), "\u{fffd}"),
            ("\u{fffd}0a".as_bytes(), "\u{fffd}0a"),
            ("\u{fffd}2F".as_bytes(), "\u{fffd}2F"),
            ("\u{fffd}0A".as_bytes(), "\u{fffd}EF\u{fffd}BF\u{fffd}BD0A"),
            ("e\u{301}".as_bytes(), "e\u{fffd}CC\u{fffd}81"),
            ("\n\u{301}".as_bytes(), "\u{fffd}0A\u{fffd}CC\u{fffd}81"),
            ("%0A".as_bytes(), "%0A"),
        ] {
            assert_eq!(text(name), shown);
        }
        assert_eq!(canonical("e\u{301}"), "\u{e9}");
        assert_eq!(canonical("a\nb"), "a\u{fffd}0Ab");
        assert_eq!(canonical("\u{fffd}C3\u{fffd}A9"), "\u{e9}", "an escape of what needs none is the character");
        assert_eq!(canonical("\u{fffd}2E\u{fffd}2E"), "\u{fffd}2E\u{fffd}2E", "never `..`");
        assert_eq!(equivalent("e\u{301}".as_bytes()).as_deref(), Some("\u{e9}"));
        assert_eq!(equivalent("\u{212a}".as_bytes()), None, "KELVIN SIGN is a K: shown escaped");
    }

    #[test]
    fn names_are_cut_between_characters() {
        let family = "\u{1f469}\u{200d}\u{1f680}";
        assert_eq!(shortened(&format!("a{family}"), 10), "a");
        assert_eq!(shortened("ae\u{316}\u{301}", 4), "a");
        assert_eq!(shortened("\u{fffd}FF\u{fffd}FE", 1), "\u{fffd}FF");
    }
}
