//! What is wrong with a configuration: where, what, and what to do about it.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File, line and column, or variable, and the key.
    pub place: String,
    /// What is wrong, with the value.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// The line of the file with a caret below; empty when there is none.
    pub excerpt: String,
}

/// Everything that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problem {
    /// A problem without an excerpt.
    pub fn new(place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), remedy: remedy.into(), excerpt: String::new() }
    }

    /// In one line, without the excerpt.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}: {}; {}", self.place, self.what, self.remedy)
    }

    /// A problem at a span of a file's text.
    pub fn at(file: &str, text: &str, span: Range<usize>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (line, column) = position(text, span.start);
        let shown = text.lines().nth(line - 1).unwrap_or_default();
        let number = line.to_string();
        let pad = " ".repeat(number.len());
        let blanks: String = shown.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let rest = shown.chars().count().saturating_sub(column - 1).max(1);
        let marked = text.get(span).map_or(1, |marked| marked.chars().take_while(|c| *c != '\n').count());
        let carets = "^".repeat(marked.clamp(1, rest));
        let excerpt = format!("  {pad} |\n  {number} | {shown}\n  {pad} | {blanks}{carets}\n");
        let (place, what, remedy) = (format!("{file}:{line}:{column}"), what.into(), remedy.into());
        match may_hold_a_secret(shown) {
            true => Self::new(place, without_value(&what), remedy),
            false => Self { place, what, remedy, excerpt },
        }
    }
}

/// Does this line say something that is not for everybody who reads a log?
fn may_hold_a_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "hash", "url", "key", "$argon2"].iter().any(|word| line.contains(word))
}

/// What a type said, without the value: `invalid type: string "x", expected a table` becomes `expected a table`.
fn without_value(what: &str) -> String {
    match (what.starts_with("unknown key"), what.rfind("expected ")) {
        (false, Some(at)) => what.get(at..).unwrap_or_default().to_owned(),
        (false, None) if what.contains(['`', '"']) => "the value cannot be used".to_owned(),
        _ => what.to_owned(),
    }
}

/// What a type of Rust said, in words of the configuration.
#[must_use]
pub fn plain(message: &str) -> String {
    let message = message.trim();
    let Some((said, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let words = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "text in quotes",
        "a sequence" => "a list: [\"…\"]",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    let said = said.replace("integer `", "the number `").replace("floating point `", "the number `");
    format!("{said}expected {words}")
}

/// Line and column, counted from 1, of a byte of a text.
#[must_use]
pub fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The word of `known` that was probably meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().div_ceil(3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The remedy for an unknown word: the nearest, or all of them.
#[must_use]
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// Edits between two words: insert, remove, change, or swap two neighbours.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let cell = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut higher: Vec<usize> = Vec::new();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let changed = cell(&above, j) + usize::from(a != b);
            let mut least = changed.min(cell(&above, j + 1) + 1).min(cell(&row, j) + 1);
            let swapped = i > 0 && j > 0 && left.get(i - 1) == Some(b) && right.get(j - 1) == Some(a);
            if swapped {
                least = least.min(cell(&higher, j - 1) + 1);
            }
            row.push(least);
        }
        higher = std::mem::replace(&mut above, row);
    }
    cell(&above, right.len())
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.excerpt.is_empty() {
            true => f.write_str(&self.line()),
            false => write!(f, "{}: {}\n{}  {}", self.place, self.what, self.excerpt, self.remedy),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(nearest("conections", ["connections", "idle"]), Some("connections"));
        assert_eq!(nearest("zzz", ["connections", "idle"]), None);
        assert_eq!(nearest("fpt", ["http", "smtp", "ftp"]), Some("ftp"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_caret_stands_under_the_word() {
        let text = "a = 1\n  bad = 2\n";
        let problem = Problem::at("f.toml", text, 8..11, "unknown key", "remove it");
        assert_eq!(problem.place, "f.toml:2:3");
        assert_eq!(problem.excerpt, "    |\n  2 |   bad = 2\n    |   ^^^\n");
    }
}
