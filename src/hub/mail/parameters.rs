//! `Content-Type` and `Content-Disposition` with their parameters (RFC 2045 §5.1, RFC 2183, RFC 2231), right and wrong.

use percent_encoding::percent_decode;

use super::{charset, words};

/// A value and its parameters in the order in which they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// What stands before the first semicolon, in lower case.
    pub value: String,
    list: Vec<(String, Vec<u8>)>,
}

impl Parameters {
    /// Reads a header's value.
    pub(super) fn parse(raw: &[u8]) -> Self {
        let raw: Vec<u8> = raw.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        let (value, mut rest) = item(&raw);
        let mut read = Self { value: plain_value(value), list: Vec::new() };
        // Some write the parameters alone.
        if memchr::memchr(b'=', value).is_some() {
            (read.value, rest) = (String::new(), &raw);
        }
        while !rest.is_empty() {
            let Some(sign) = memchr::memchr2(b'=', b';', rest) else { break };
            let (name, behind) = rest.split_at(sign);
            let behind_sign = behind.get(1..).unwrap_or_default();
            if behind.first() == Some(&b';') {
                rest = behind_sign;
                continue;
            }
            let (value, behind) = parameter(behind_sign);
            let name = String::from_utf8_lossy(name).trim().to_ascii_lowercase();
            read.list.push((name, value));
            rest = behind;
        }
        read
    }

    /// A parameter as text, in the best of its forms that says anything: extended, in pieces, plain.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let extended = self.plain(&format!("{name}*")).map(extended);
        let texts = [extended, self.pieces(name), self.plain(name).map(extended_or_plain)];
        texts.into_iter().flatten().map(|text| unquoted(&text)).find(|text| !text.trim().is_empty())
    }

    /// A parameter that is compared byte by byte, such as a boundary: as it was sent, or else put together from its pieces (RFC 2231 §3).
    pub(super) fn exact(&self, name: &str) -> Option<Vec<u8>> {
        let plain = self.plain(name).filter(|value| !value.trim_ascii().is_empty());
        let joined = || {
            let extended = self.plain(&format!("{name}*")).map(|raw| split_charset(raw).map_or(raw, |(_, rest)| rest));
            let extended = extended.map(|raw| percent_decode(raw).collect());
            extended.or_else(|| self.joined(name).map(|(_, bytes)| bytes))
        };
        plain.map(<[u8]>::to_vec).or_else(joined)
    }

    fn plain(&self, name: &str) -> Option<&[u8]> {
        let mut all = self.list.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_slice());
        all.clone().find(|value| !value.trim_ascii().is_empty()).or_else(|| all.next())
    }

    /// `name*0`, `name*1*`, … as text.
    fn pieces(&self, name: &str) -> Option<String> {
        self.joined(name).map(|(label, bytes)| words::decode(&text(&label, &bytes)))
    }

    /// `name*0`, `name*1*`, … put together in the order of their numbers: the charset they name, and the bytes.
    fn joined(&self, name: &str) -> Option<(String, Vec<u8>)> {
        let numbered = self.list.iter().filter_map(|(key, value)| {
            let rest = key.strip_prefix(name)?.strip_prefix('*')?;
            let encoded = rest.ends_with('*');
            Some((rest.trim_end_matches('*').parse::<u32>().ok()?, encoded, value.as_slice()))
        });
        let mut pieces: Vec<(u32, bool, &[u8])> = numbered.collect();
        pieces.sort_by_key(|(number, ..)| *number);
        pieces.dedup_by_key(|(number, ..)| *number);
        let (_, first_encoded, first) = *pieces.first()?;
        let (label, first) = match split_charset(first) {
            Some((label, rest)) if first_encoded || charset::is_known(&label) => (label, rest),
            _ => (String::new(), first),
        };
        let mut bytes = Vec::new();
        for (at, (_, encoded, value)) in pieces.iter().enumerate() {
            let value = if at == 0 { first } else { value };
            match *encoded || (at == 0 && !label.is_empty()) {
                true => bytes.extend(percent_decode(value)),
                false => bytes.extend_from_slice(value),
            }
        }
        Some((label, bytes))
    }
}

/// `utf-8'de'M%C3%A4rz.pdf`. What is not in this form is read as a plain value.
fn extended(raw: &[u8]) -> String {
    if let Some((label, rest)) = split_charset(raw) {
        return words::decode(&text(&label, &percent_decode(rest).collect::<Vec<u8>>()));
    }
    let plain = words::decode(&charset::guess(raw));
    if plain.contains("=?") || !plain.contains('%') { plain } else { percent(plain.as_bytes()) }
}

/// A plain value; one in the extended form of a charset we know is meant so.
fn extended_or_plain(raw: &[u8]) -> String {
    match split_charset(raw) {
        Some((label, _)) if charset::is_known(&label) => extended(raw),
        _ => words::decode(&charset::guess(raw)),
    }
}

fn percent(raw: &[u8]) -> String {
    charset::guess(&percent_decode(raw).collect::<Vec<u8>>())
}

fn text(label: &str, bytes: &[u8]) -> String {
    if label.is_empty() { charset::guess(bytes) } else { charset::decode(label, bytes) }
}

/// The charset in front of two apostrophes, and what is behind them.
fn split_charset(raw: &[u8]) -> Option<(String, &[u8])> {
    let first = memchr::memchr(b'\'', raw)?;
    let (label, rest) = raw.split_at(first);
    let rest = rest.get(1..)?;
    let second = memchr::memchr(b'\'', rest)?;
    let word = |bytes: &[u8]| bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+".contains(byte));
    if !word(label) || !word(rest.get(..second)?) {
        return None;
    }
    Some((String::from_utf8_lossy(label).into_owned(), rest.get(second + 1..)?))
}

/// Up to the next semicolon that is not inside an encoded word.
fn item(raw: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        match byte {
            b';' => return (raw.get(..at).unwrap_or_default(), raw.get(at + 1..).unwrap_or_default()),
            b'=' => at += words::length(raw.get(at..).unwrap_or_default()).unwrap_or(1),
            _ => at += 1,
        }
    }
    (raw, &[])
}

/// A parameter's value, without quotes, escapes and a comment behind it; and what comes behind its semicolon.
fn parameter(raw: &[u8]) -> (Vec<u8>, &[u8]) {
    let raw = raw.trim_ascii_start();
    let Some(quoted) = raw.strip_prefix(b"\"") else {
        let (value, rest) = item(raw);
        return (without_comment(value.trim_ascii()).to_vec(), rest);
    };
    let (mut value, mut at) = (Vec::new(), 0);
    while let Some(byte) = quoted.get(at) {
        let behind = quoted.get(at + 1..).unwrap_or_default();
        match (byte, behind.first()) {
            // Any other backslash is one: Windows paths are sent as they are.
            (b'\\', Some(escaped @ (b'"' | b'\\'))) => {
                value.push(*escaped);
                at += 2;
            }
            (b'"', _) if closes(behind) => return (value, behind_semicolon(behind)),
            _ => {
                value.push(*byte);
                at += 1;
            }
        }
    }
    (value, &[])
}

/// Is a quotation over where this is behind its mark? A mark in the middle of a name is part of it.
fn closes(behind: &[u8]) -> bool {
    let blank = behind.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    let behind = behind.trim_ascii_start();
    let word = behind.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"-_*".contains(byte)));
    match behind.first() {
        None | Some(b';' | b'(' | b',') => true,
        Some(_) => blank && word.is_some_and(|end| end > 0 && behind.get(end) == Some(&b'=')),
    }
}

/// Where the next parameter begins; a missing semicolon ends nothing.
fn behind_semicolon(behind: &[u8]) -> &[u8] {
    let trimmed = behind.trim_ascii_start();
    match trimmed.first() {
        Some(b';') => trimmed.get(1..).unwrap_or_default(),
        Some(b'(' | b',') => item(trimmed).1,
        _ => trimmed,
    }
}

/// A comment behind a word with an extension; `scan (1).pdf` and `scan (1)` have none.
fn without_comment(value: &[u8]) -> &[u8] {
    let word = memchr::memmem::find(value, b" (").and_then(|at| value.get(..at)).unwrap_or_default();
    match value.ends_with(b")") && word.contains(&b'.') && !word.contains(&b' ') {
        true => word,
        false => value,
    }
}

/// `application/pdf`, in lower case, without comments and what else stands behind it.
fn plain_value(raw: &[u8]) -> String {
    let text = charset::guess(raw);
    let text = match text.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, behind)) => behind,
        None => &text,
    };
    let word = text.trim().split(|letter: char| letter.is_whitespace() || letter == '(' || letter == ',').next();
    word.unwrap_or_default().trim_matches('"').to_ascii_lowercase()
}

/// Without the quotation marks some put into the name itself.
fn unquoted(text: &str) -> String {
    let inner = text.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(written: &str) -> String {
        let read = Parameters::parse(format!("attachment; {written}").as_bytes());
        assert_eq!(read.value, "attachment", "{written}");
        read.get("filename").unwrap_or_default()
    }

    #[test]
    fn names_are_read_however_they_are_written() {
        let table = [
            ("filename=plain.pdf", "plain.pdf"),
            ("filename = \"spaced.pdf\" ; size=3", "spaced.pdf"),
            ("FileName=\"a;b.pdf\"; size=3", "a;b.pdf"),
            ("filename=two words.pdf; size=3", "two words.pdf"),
            ("filename=scan (1).pdf", "scan (1).pdf"),
            ("filename=a.pdf (a comment)", "a.pdf"),
            ("filename=\"say \\\"hi\\\".pdf\"", "say \"hi\".pdf"),
            ("filename=\"say \"hi\".pdf\"", "say \"hi\".pdf"),
            ("filename=\"a.pdf\" size=3", "a.pdf"),
            ("filename=\"open.pdf", "open.pdf"),
            ("filename=\"C:\\Scans\\me\\scan.pdf\"", "C:\\Scans\\me\\scan.pdf"),
            ("filename=\"\\\\\\\\host\\\\share\\\\scan.pdf\"", "\\\\host\\share\\scan.pdf"),
            ("filename==?UTF-8?B?w6QucGRm?=", "ä.pdf"),
            ("filename==?UTF-8?Q?a;b=C3=A4.pdf?=; size=3", "a;bä.pdf"),
            ("filename*=\"=?utf-8?q?Plan=5FNord_neu=2Epdf?=\"", "Plan_Nord neu.pdf"),
            (
                "filename*0=\"=?UTF-8?B?w5xiZXJzaWNodCBNYWkg\";\r\n filename*1=\"MjAyNi5wZGY=?=\"",
                "Übersicht Mai 2026.pdf",
            ),
            ("filename*=utf-8'de-AT'M%C3%A4rz.pdf", "März.pdf"),
            ("filename*=cp850''M%84rz.pdf", "März.pdf"),
            ("filename*=\"utf-8''M%C3%A4rz.pdf\"", "März.pdf"),
            ("filename=\"utf-8''M%C3%A4rz.pdf\"", "März.pdf"),
            ("filename=\"it's 'fine'.pdf\"", "it's 'fine'.pdf"),
            ("filename*0*=utf-8'de'M%C3; filename*1*=%A4rz; filename*2=\" 100%.pdf\"", "März 100%.pdf"),
            ("filename*1=\"b.pdf\"; filename*0=\"a\"", "ab.pdf"),
            ("filename*=utf-8''%3D%3Futf-8%3FB%3Fw6QucGRm%3F%3D", "ä.pdf"),
            ("filename=fallback.pdf; filename*=utf-8''bett%C3%A9r.pdf", "bettér.pdf"),
            ("filename*=; filename=\"\"; filename=c.pdf", "c.pdf"),
            ("filename=\"\"", ""),
        ];
        for (written, meant) in table {
            assert_eq!(name(written), meant, "{written}");
        }
        for written in [
            "boundary=\"a=b%20\"",
            "boundary*0*=us-ascii''a%3D; boundary*1=\"b%20\"",
            "boundary*0=\"a=\"; boundary*1=\"b%20\"",
            "boundary*=us-ascii''a%3Db%2520",
            "boundary=\"\"; boundary*=a%3Db%2520",
        ] {
            let read = Parameters::parse(format!("multipart/mixed; {written}").as_bytes());
            assert_eq!(read.exact("boundary").as_deref(), Some(&b"a=b%20"[..]), "{written}");
        }
        let raw = Parameters::parse(b"attachment; filename=\"M\xe4rz.pdf\"");
        assert_eq!(raw.get("filename").as_deref(), Some("März.pdf"));
        assert_eq!(Parameters::parse(b"filename=x.pdf").get("filename").as_deref(), Some("x.pdf"));
        assert_eq!(Parameters::parse(b" Application/PDF (Acrobat); name=x").value, "application/pdf");
    }

    proptest! {
        #[test]
        fn any_value_is_bearable(raw in "(;|=|\"|\\\\|'|\\*|filename|name|[0-3]|utf-8|%C3|=\\?utf-8\\?Q\\?| |a){0,60}") {
            for name in ["filename", "name"] {
                let text = Parameters::parse(raw.as_bytes()).get(name);
                prop_assert!(text.is_none_or(|text| text.len() <= raw.len() * 3));
            }
        }
    }
}
