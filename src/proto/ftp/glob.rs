//! Patterns of names, as a shell knows them: `*`, `?` and `[a-z]`.

/// True when a name holds something a shell would take for a pattern.
#[must_use]
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// `*`, `?` (one character) and `[…]` as in a shell, in time proportional to both lengths' product. A `[` without its `]` is a bracket.
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    // Behind the last star, and how far it reached: all there is to come back to.
    let mut back: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            back = Some((rest, name));
            pattern = rest;
            continue;
        }
        if name.is_empty() && pattern.is_empty() {
            return true;
        }
        if let Some((pattern_rest, name_rest)) = one(pattern, name) {
            (pattern, name) = (pattern_rest, name_rest);
            continue;
        }
        let Some((star, [_, name_rest @ ..])) = back else { return false };
        back = Some((star, name_rest));
        (pattern, name) = (star, name_rest);
    }
}

/// One step of both, when the pattern's first part takes the name's first character.
fn one<'p, 'n>(pattern: &'p [u8], name: &'n [u8]) -> Option<(&'p [u8], &'n [u8])> {
    let (&letter, behind) = name.split_first()?;
    match pattern {
        [b'?', rest @ ..] => {
            let more = behind.iter().take_while(|byte| letter >= 0xC0 && matches!(byte, 0x80..=0xBF)).take(3).count();
            Some((rest, behind.get(more..).unwrap_or_default()))
        }
        [b'[', rest @ ..] => match class(rest, letter) {
            Some((true, rest)) => Some((rest, behind)),
            Some((false, _)) => None,
            None => (letter == b'[').then_some((rest, behind)),
        },
        [first, rest @ ..] => (*first == letter).then_some((rest, behind)),
        [] => None,
    }
}

/// `abc]`, `a-z]`, `!a]`: whether the letter is in it, and what follows. `None` without an end.
fn class(set: &[u8], letter: u8) -> Option<(bool, &[u8])> {
    let (wanted, set) = match set {
        [b'!' | b'^', set @ ..] => (false, set),
        _ => (true, set),
    };
    // A `]` that comes first is one of the set.
    let end = set.iter().skip(1).position(|byte| *byte == b']')? + 1;
    let (mut members, rest) = (set.get(..end)?, set.get(end + 1..)?);
    let mut found = false;
    while let [first, more @ ..] = members {
        let (last, more) = match more {
            [b'-', last, more @ ..] => (last, more),
            _ => (first, more),
        };
        found |= (*first..=*last).contains(&letter);
        members = more;
    }
    Some((found == wanted, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, hit) in [
            ("*.txt", "a.txt", true),
            ("a?c*", "abcdef", true),
            ("*a*b", "xaxxb", true),
            ("?", "", false),
            ("*a", "ab", false),
            ("f?r", "für", true),
            ("[a-c]?.jpg", "b1.jpg", true),
            ("[!a-c]1.jpg", "b1.jpg", false),
            ("[]x]", "]", true),
            ("a[", "a[", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), hit, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_a_star_behind_takes_nothing_away(name in "[a-z.é]{0,12}", pattern in "[a-c*?\\[\\]!-]{0,12}") {
            prop_assert!(matches(name.as_bytes(), name.as_bytes()));
            if matches(pattern.as_bytes(), name.as_bytes()) {
                let longer = format!("{pattern}*");
                prop_assert!(matches(longer.as_bytes(), name.as_bytes()));
            }
        }
    }
}
