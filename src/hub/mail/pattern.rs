//! Addresses with a star: `*@example.org`, `scan-*@example.org`, `*.pdf`. One star, anything in its place.

/// A text with at most one star, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    head: String,
    /// What stands behind the star, when there is one.
    tail: Option<String>,
}

impl Pattern {
    /// Reads it; `None` for more than one star.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        match text.split_once('*') {
            None => Some(Self { head: text, tail: None }),
            Some((_, tail)) if tail.contains('*') => None,
            Some((head, tail)) => Some(Self { head: head.to_owned(), tail: Some(tail.to_owned()) }),
        }
    }

    /// Does a text in lower case fit?
    pub(crate) fn fits(&self, text: &str) -> bool {
        match &self.tail {
            None => text == self.head,
            Some(tail) => {
                text.len() >= self.head.len() + tail.len() && text.starts_with(&self.head) && text.ends_with(tail)
            }
        }
    }

    /// Letters that must be as written: the more, the more the pattern means.
    pub(crate) fn weight(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, String::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_anything_and_nothing_else_is() {
        let table = [
            ("*@example.org", "bob@example.org", true),
            ("*@example.org", "@example.org", true),
            ("*@example.org", "bob@example.net", false),
            ("Scan-*@example.org", "scan-3@example.org", true),
            ("scan-*@example.org", "scan@example.org", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("bob", "bob", true),
            ("bob", "bobb", false),
            ("*", "", true),
        ];
        for (pattern, text, fits) in table {
            assert_eq!(Pattern::parse(pattern).expect(pattern).fits(text), fits, "{pattern} {text}");
        }
        assert_eq!(Pattern::parse("*@*"), None);
    }
}
