//! Names as people see them: marks that change the direction of text are written out.
//!
//! A right-to-left override in `photo<U+202E>gpj.exe` makes a page show `photoexe.jpg`. Only what is shown changes; links and forms carry the
//! name as it is.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The name with each mark as `<U+202E>`.
pub fn shown(name: &str) -> Cow<'_, str> {
    if !name.contains(is_mark) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len() + 16);
    for letter in name.chars() {
        if is_mark(letter) {
            let _ = write!(text, "<U+{:04X}>", u32::from(letter));
        } else {
            text.push(letter);
        }
    }
    Cow::Owned(text)
}

/// Controls of the Unicode bidirectional algorithm (UAX #9 §2).
fn is_mark(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_direction_are_written_out_and_letters_stay() {
        assert_eq!(shown("photo\u{202e}gpj.exe"), "photo<U+202E>gpj.exe");
        assert_eq!(shown("a\u{61c}\u{200f}\u{2069}b"), "a<U+061C><U+200F><U+2069>b");
        for plain in ["", "März.pdf", "عقد.pdf", "a<U+202E>"] {
            assert!(matches!(shown(plain), Cow::Borrowed(same) if same == plain));
        }
    }
}
