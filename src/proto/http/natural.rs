//! The order of names as people expect it: `IMG_2` before `IMG_10`, large and small letters alike.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::str::Chars;

/// Compares two names; only the same name is equal.
pub fn compare(one: &str, other: &str) -> Ordering {
    let (mut a, mut b) = (one.chars().peekable(), other.chars().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return one.cmp(other),
            (x, y) if x.is_some_and(char::is_ascii_digit) && y.is_some_and(char::is_ascii_digit) => {
                let (x, y) = (number(&mut a), number(&mut b));
                x.len().cmp(&y.len()).then_with(|| x.cmp(&y))
            }
            _ => fold(a.next()).cmp(fold(b.next())),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// A row of digits without the zeros before it: the longer one is the larger number.
fn number(chars: &mut Peekable<Chars<'_>>) -> String {
    while chars.next_if_eq(&'0').is_some() {}
    std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect()
}

fn fold(sign: Option<char>) -> impl Iterator<Item = char> {
    sign.into_iter().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_within_names_count_as_numbers() {
        let sorted = [
            "",
            "2",
            "10",
            "99999999999999999999998",
            "99999999999999999999999",
            "a",
            "A1",
            "a 1",
            "IMG_1.jpg",
            "img_1.jpg",
            "IMG_2.jpg",
            "IMG_010.jpg",
            "IMG_10.jpg",
            "IMG_10b.jpg",
            "IMG_100.jpg",
            "v1.2.9",
            "v1.2.10",
            "Ä",
        ];
        let mut names = sorted;
        names.reverse();
        names.sort_by(|a, b| compare(a, b));
        // A blank comes before a digit.
        let wanted: Vec<&str> = sorted
            .iter()
            .map(|name| match *name {
                "A1" => "a 1",
                "a 1" => "A1",
                name => name,
            })
            .collect();
        assert_eq!(names.to_vec(), wanted);
        for (place, a) in names.iter().enumerate() {
            for (other, b) in names.iter().enumerate() {
                assert_eq!(compare(a, b), place.cmp(&other), "{a} {b}");
            }
        }
    }
}
