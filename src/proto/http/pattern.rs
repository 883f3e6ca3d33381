//! Patterns of names and paths: `*` stands for any text.

/// A pattern. Without a slash it is about a file's name, with one about the whole path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<String>,
    whole: bool,
}

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Self {
        Self { pieces: text.split('*').map(str::to_owned).collect(), whole: text.contains('/') }
    }

    /// Does it fit a path, which begins with a slash?
    pub fn fits(&self, path: &str) -> bool {
        let text = if self.whole { path } else { path.rsplit('/').next().unwrap_or_default() };
        self.catch(text).is_some()
    }

    /// What its first `*` stands for in a text that it fits; nothing where it has none.
    pub fn catch<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (first, rest) = self.pieces.split_first()?;
        let after = text.strip_prefix(first.as_str())?;
        let Some((last, middle)) = rest.split_last() else { return after.is_empty().then_some("") };
        let mut left = after.strip_suffix(last.as_str())?;
        let mut caught = None;
        for piece in middle {
            let at = left.find(piece.as_str())?;
            caught = caught.or_else(|| left.get(..at));
            left = left.get(at + piece.len()..)?;
        }
        Some(caught.unwrap_or(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_slash_makes_it_a_path() {
        for (pattern, path, fits) in [
            ("*.css", "/a/b.css", true),
            ("*.css", "/a/b.css.map", false),
            ("/assets/*", "/assets/x/y.js", true),
            ("/assets/*", "/b/assets/x.js", false),
            ("*", "/anything", true),
            ("/a*b*c", "/a-b-c", true),
            ("/a*b*c", "/a-c", false),
            ("app-*.js", "/js/app-1f3a.js", true),
            ("/only", "/only", true),
            ("/only", "/only/", false),
            ("a*a", "/a", false),
        ] {
            assert_eq!(Pattern::new(pattern).fits(path), fits, "{pattern} {path}");
        }
    }

    #[test]
    fn the_first_star_is_what_it_stands_for() {
        assert_eq!(Pattern::new("/old/*").catch("/old/a/b"), Some("a/b"));
        assert_eq!(Pattern::new("/old/*.php").catch("/old/a.php"), Some("a"));
        assert_eq!(Pattern::new("/old").catch("/old"), Some(""));
        assert_eq!(Pattern::new("/*/x/*").catch("/a/x/b"), Some("a"));
    }
}
