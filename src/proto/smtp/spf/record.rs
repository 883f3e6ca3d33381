//! The syntax of an SPF record (RFC 7208 §4.5, §5, §6, §7, §12), to the letter: what is not of it is a permanent error.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What stands in front of every record.
const VERSION: &str = "v=spf1";

/// What a mechanism that matches says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Qualifier {
    Fail,
    Neutral,
    Pass,
    SoftFail,
}

/// One test of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    A(Option<Spec>, Masks),
    Exists(Spec),
    Include(Spec),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Mx(Option<Spec>, Masks),
    Ptr(Option<Spec>),
}

/// Lengths of the prefixes that count, for either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Masks {
    pub v4: u8,
    pub v6: u8,
}

/// A domain with macros in it, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec(pub Vec<Piece>);

/// A piece of a domain with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Macro { letter: u8, escaped: bool, keep: usize, reverse: bool, delimiters: String },
}

/// A record that is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub directives: Vec<(Qualifier, Mechanism)>,
    pub redirect: Option<Spec>,
    explained: bool,
}

impl Record {
    /// True when a text is meant to be a record, right or wrong.
    pub(super) fn is_meant(text: &[u8]) -> bool {
        let begun = text.get(..VERSION.len()).is_some_and(|start| start.eq_ignore_ascii_case(VERSION.as_bytes()));
        begun && text.get(VERSION.len()).is_none_or(|next| *next == b' ')
    }

    /// Reads it; `None`: it is not of the syntax.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
        let mut record = Self::default();
        for term in text.get(VERSION.len()..)?.split(' ').filter(|term| !term.is_empty()) {
            record.term(term)?;
        }
        Some(record)
    }

    fn term(&mut self, term: &str) -> Option<()> {
        let end = term.find(|letter: char| !(letter.is_ascii_alphanumeric() || "-_.".contains(letter)));
        if let Some((name, value)) = end.and_then(|end| term.split_at_checked(end))
            && let Some(value) = value.strip_prefix('=')
        {
            return self.modifier(name, value);
        }
        let (qualifier, rest) = match term.split_at_checked(1)? {
            ("+", rest) => (Qualifier::Pass, rest),
            ("-", rest) => (Qualifier::Fail, rest),
            ("~", rest) => (Qualifier::SoftFail, rest),
            ("?", rest) => (Qualifier::Neutral, rest),
            _ => (Qualifier::Pass, term),
        };
        self.directives.push((qualifier, mechanism(rest)?));
        Some(())
    }

    fn modifier(&mut self, name: &str, value: &str) -> Option<()> {
        if !name.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "redirect" => self.redirect.replace(Spec::parse(value)?).is_none().then_some(()),
            "exp" => {
                Spec::parse(value)?;
                (!std::mem::replace(&mut self.explained, true)).then_some(())
            }
            // Another modifier is passed over, if its value could be one.
            _ => pieces(value, true).map(drop),
        }
    }
}

fn mechanism(text: &str) -> Option<Mechanism> {
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    let value = rest.strip_prefix(':');
    match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Some(Mechanism::All),
        "include" => Some(Mechanism::Include(Spec::parse(value?)?)),
        "exists" => Some(Mechanism::Exists(Spec::parse(value?)?)),
        "ptr" if rest.is_empty() => Some(Mechanism::Ptr(None)),
        "ptr" => Some(Mechanism::Ptr(Some(Spec::parse(value?)?))),
        "a" => masked(rest).map(|(spec, masks)| Mechanism::A(spec, masks)),
        "mx" => masked(rest).map(|(spec, masks)| Mechanism::Mx(spec, masks)),
        "ip4" => {
            let (address, length) = network(value?, 32)?;
            Some(Mechanism::Ip4(address.parse().ok()?, length))
        }
        "ip6" => {
            let (address, length) = network(value?, 128)?;
            Some(Mechanism::Ip6(address.parse().ok()?, length))
        }
        _ => None,
    }
}

/// `address[/length]`.
fn network(text: &str, most: u8) -> Option<(&str, u8)> {
    match text.split_once('/') {
        Some((address, digits)) => Some((address, length(digits, most)?)),
        None => Some((text, most)),
    }
}

/// `[:domain][/length][//length]`.
fn masked(text: &str) -> Option<(Option<Spec>, Masks)> {
    let (text, v6) = match text.rsplit_once("//") {
        Some((before, digits)) if is_number(digits) => (before, length(digits, 128)?),
        _ => (text, 128),
    };
    let (text, v4) = match text.rsplit_once('/') {
        Some((before, digits)) if is_number(digits) => (before, length(digits, 32)?),
        _ => (text, 32),
    };
    let spec = match text.strip_prefix(':') {
        Some(domain) => Some(Spec::parse(domain)?),
        None if text.is_empty() => None,
        None => return None,
    };
    Some((spec, Masks { v4, v6 }))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())
}

/// Without leading zeros.
fn length(digits: &str, most: u8) -> Option<u8> {
    let plain = is_number(digits) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|length| plain && *length <= most)
}

impl Spec {
    /// A domain that ends in a label which is no number, or in a macro.
    fn parse(text: &str) -> Option<Self> {
        let pieces = pieces(text, false)?;
        let ends_well = match pieces.last()? {
            Piece::Macro { .. } => true,
            // An escaped percent sign ends no domain.
            Piece::Text(_) => {
                let (_, top) = text.strip_suffix('.').unwrap_or(text).rsplit_once('.')?;
                is_top_label(top)
            }
        };
        ends_well.then_some(Self(pieces))
    }
}

fn is_top_label(label: &str) -> bool {
    let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let numeric = label.bytes().all(|byte| byte.is_ascii_digit());
    !label.is_empty() && plain && !numeric && !label.starts_with('-') && !label.ends_with('-')
}

/// Literals and macros; `any`: those for explanations too.
fn pieces(text: &str, any: bool) -> Option<Vec<Piece>> {
    let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some((first, behind)) = rest.split_at_checked(1).filter(|(first, _)| !first.is_empty()) {
        if first != "%" {
            literal.push_str(first.bytes().all(|byte| byte.is_ascii_graphic()).then_some(first)?);
            rest = behind;
            continue;
        }
        let (kind, behind) = behind.split_at_checked(1)?;
        rest = behind;
        match kind {
            "%" => literal.push('%'),
            "_" => literal.push(' '),
            "-" => literal.push_str("%20"),
            "{" => {
                let (inside, behind) = behind.split_once('}')?;
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                pieces.push(expansion(inside, any)?);
                rest = behind;
            }
            _ => return None,
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Some(pieces)
}

/// What stands between `%{` and `}`.
fn expansion(text: &str, any: bool) -> Option<Piece> {
    let (letter, rest) = text.split_at_checked(1)?;
    let small = letter.to_ascii_lowercase();
    if !("slodiphv".contains(&small) || (any && "crt".contains(&small))) {
        return None;
    }
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at_checked(end)?;
    let keep = match digits {
        "" => usize::MAX,
        digits => digits.parse().unwrap_or(usize::MAX),
    };
    let reversed = rest.strip_prefix(['r', 'R']);
    let delimiters = reversed.unwrap_or(rest);
    let known = delimiters.bytes().all(|byte| b".-+,/_=".contains(&byte));
    (keep > 0 && known).then(|| Piece::Macro {
        letter: small.bytes().next().unwrap_or_default(),
        escaped: letter != small,
        keep,
        reverse: reversed.is_some(),
        delimiters: delimiters.to_owned(),
    })
}
