//! The header section of a message or part, repaired before it is parsed: `mailparse` gives up a section with a blank before a colon or a
//! folded first line, and with it the part's name and encoding.

use mailparse::MailHeader;

use super::{charset, words};

/// Fields of a section, in their order.
#[derive(Debug, Default)]
pub(super) struct Fields {
    list: Vec<(String, Vec<u8>)>,
    /// There was something that is no field, or no field at all where there was something.
    pub damaged: bool,
}

impl Fields {
    /// Reads a section, with or without the empty line at its end.
    pub(super) fn parse(section: &[u8]) -> Self {
        let mut fields = Self::default();
        let repaired = fields.repaired(section);
        let parsed = mailparse::parse_headers(&repaired).map(|(parsed, _)| parsed);
        fields.damaged |= parsed.is_err();
        let read =
            |header: &MailHeader<'_>| (header.get_key_ref().to_ascii_lowercase(), header.get_value_raw().to_vec());
        fields.list = parsed.unwrap_or_default().iter().map(read).collect();
        fields.damaged |= fields.list.iter().any(|(name, value)| holds_another(name, value));
        fields
    }

    /// The first field of a name (in lower case) that says anything.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let mut all = self.all(name);
        all.clone().find(|value| !value.is_empty()).or_else(|| all.next())
    }

    /// As text, decoded.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let raw: Vec<u8> = self.get(name)?.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        Some(words::decode(&charset::guess(&raw)))
    }

    /// True when a field is there twice and says different things.
    pub(super) fn is_contradicted(&self, name: &str) -> bool {
        let mut all = self.all(name);
        let first = all.next();
        all.any(|value| first.is_some_and(|first| !value.eq_ignore_ascii_case(first)))
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> + Clone {
        self.list.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.trim_ascii())
    }

    /// Only what is a field, each with its colon right behind its name.
    fn repaired(&mut self, section: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(section.len());
        for line in section.split_inclusive(|byte| *byte == b'\n') {
            match Line::of(line) {
                Line::Empty => {}
                Line::Folded if !out.is_empty() => out.extend_from_slice(line),
                Line::Field { name, behind } => {
                    out.extend_from_slice(name);
                    out.push(b':');
                    out.extend_from_slice(behind);
                }
                Line::Envelope if out.is_empty() => {}
                Line::Folded | Line::Envelope | Line::Other => self.damaged = true,
            }
        }
        out
    }
}

/// What a line of a header section is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// It ends the section.
    Empty,
    /// The `From ` line of an mbox.
    Envelope,
    /// A field begins.
    Field { name: &'a [u8], behind: &'a [u8] },
    /// The field before it goes on.
    Folded,
    /// No header line.
    Other,
}

impl<'a> Line<'a> {
    /// Judges a line by its beginning.
    pub(super) fn of(line: &'a [u8]) -> Self {
        if line.trim_ascii_end().is_empty() {
            return if line.starts_with(b" ") || line.starts_with(b"\t") { Self::Folded } else { Self::Empty };
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Self::Folded;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return if is_envelope(line) { Self::Envelope } else { Self::Other };
        };
        let (name, behind) = line.split_at(colon);
        let name = name.trim_ascii_end();
        match !name.is_empty() && name.iter().all(u8::is_ascii_graphic) && !name.starts_with(b"--") {
            true => Self::Field { name, behind: behind.get(1..).unwrap_or_default() },
            false if is_envelope(line) => Self::Envelope,
            false => Self::Other,
        }
    }
}

/// Has a field that describes content swallowed another one?
fn holds_another(name: &str, value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    let mut found = memchr::memmem::find_iter(&value, b"content-");
    name.starts_with("content-")
        && found.any(|at| {
            let rest = value.get(at..).unwrap_or_default();
            let word = rest.iter().position(|byte| !(byte.is_ascii_alphabetic() || *byte == b'-'));
            word.and_then(|end| rest.get(end..)).is_some_and(|behind| behind.trim_ascii_start().starts_with(b":"))
        })
}

fn is_envelope(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_section_keeps_its_fields() {
        let fields = Fields::parse(
            b"  charset=x\r\nSubject : =?utf-8?Q?=C3?=\r\n =?utf-8?Q?=A4?=\r\nX:1\r\nnonsense\r\nx: 2\r\n\r\n",
        );
        assert!(fields.damaged);
        assert_eq!(fields.text("subject").as_deref(), Some("ä"));
        assert_eq!(fields.get("x"), Some(&b"1"[..]));
        assert!(fields.is_contradicted("x") && !fields.is_contradicted("subject"));
        let fields = Fields::parse(b"From a@b Mon\r\nSubject: raw \xe4\r\n");
        assert!(!fields.damaged);
        assert_eq!(fields.text("subject").as_deref(), Some("raw ä"));
        assert!(Fields::parse(b"nothing to be read\r\n").damaged && !Fields::parse(b"").damaged);
    }
}
