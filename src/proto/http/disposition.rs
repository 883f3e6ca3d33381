//! `Content-Disposition` of a part of a form (RFC 7578 §4.2), as browsers and programs write it.

use percent_encoding::percent_decode_str;

/// What the header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disposition {
    /// Name of the field.
    pub name: Option<String>,
    /// Name of the file, for a file field.
    pub file: Option<String>,
}

impl Disposition {
    /// Reads the header's value.
    pub fn read(value: &str) -> Self {
        let mut said = Self::default();
        let mut extended = None;
        for (key, value) in parameters(value) {
            match key.as_str() {
                "name" => said.name = said.name.or(Some(value)),
                "filename" => said.file = said.file.or(Some(value)),
                "filename*" => extended = extended.or_else(|| decode(&value)),
                _ => {}
            }
        }
        // Browsers write a quote as `%22` (HTML, multipart/form-data encoding algorithm).
        let plain = said.file.map(|name| name.replace("%22", "\""));
        said.file = extended.or(plain);
        said.name = said.name.map(|name| name.replace("%22", "\""));
        said
    }
}

/// Names in lower case, and values without their quotes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // The first word is the type: `form-data`, from some `attachment`.
    let mut rest = text.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((key, value)) = rest.split_once('=') {
        // A parameter without a value stands before it.
        let key = key.rsplit(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let value = value.trim_start();
        let (value, after) = if let Some(quoted) = value.strip_prefix('"') {
            unquote(quoted)
        } else {
            let (value, after) = value.split_once(';').unwrap_or((value, ""));
            (value.trim().to_owned(), after)
        };
        found.push((key, value));
        rest = after;
    }
    found
}

/// Text up to the closing quote, and what follows it. Some senders escape quotes and backslashes with a backslash, others (browsers) write a
/// backslash as it is: so `\"` is a quote as long as another one closes the text, and a backslash before anything else is a backslash.
fn unquote(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = quoted;
    while let Some(at) = rest.find(['"', '\\']) {
        let (before, special) = rest.split_at(at);
        text.push_str(before);
        let behind = special.get(1..).unwrap_or_default();
        if special.starts_with('"') {
            return (text, behind);
        }
        let next = behind.chars().next().filter(|next| matches!(next, '"' | '\\'));
        match next {
            Some('"') if !behind.get(1..).is_some_and(|later| later.contains('"')) => text.push('\\'),
            Some(escaped) => {
                text.push(escaped);
                rest = behind.get(1..).unwrap_or_default();
                continue;
            }
            None => text.push('\\'),
        }
        rest = behind;
    }
    // The closing quote is missing: all of it is the text.
    text.push_str(rest);
    (text, "")
}

/// `filename*` (RFC 8187): charset, language, and percent-encoded text. `None` where it cannot be read.
fn decode(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, text) = rest.split_once('\'')?;
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_read_as_each_sender_writes_them() {
        for (value, file) in [
            (r#"form-data; name="f"; filename="a.txt""#, Some("a.txt")),
            ("form-data; name=f; filename=a.txt", Some("a.txt")),
            (r#"Form-Data;NAME=f;FileName = "a.txt" "#, Some("a.txt")),
            (r#"attachment; filename="a.txt"; name="f""#, Some("a.txt")),
            // curl --form-escape, Go
            (r#"form-data; name="f"; filename="a\"c.txt""#, Some("a\"c.txt")),
            (r#"form-data; name="f"; filename="\"a\"""#, Some("\"a\"")),
            (r#"form-data; name="f"; filename="a\\c.txt""#, Some("a\\c.txt")),
            (r#"form-data; name="f"; filename="a\\""#, Some("a\\")),
            // browsers, curl
            (r#"form-data; name="f"; filename="a%22c.txt""#, Some("a\"c.txt")),
            (r#"form-data; name="f"; filename="100%.txt""#, Some("100%.txt")),
            (r#"form-data; name="f"; filename="C:\dir\x.txt""#, Some("C:\\dir\\x.txt")),
            (r#"form-data; name="f"; filename="dir\""#, Some("dir\\")),
            (r#"form-data; filename="dir\"; name="f""#, Some("dir\"; name=")),
            (r#"form-data; name="f"; filename="a; name=b; filename=c.txt""#, Some("a; name=b; filename=c.txt")),
            (r#"form-data; name="f"; filename="a=b.txt""#, Some("a=b.txt")),
            (r#"form-data; name="f"; filename=" a ""#, Some(" a ")),
            (r#"form-data; name="f"; filename="üñ.txt""#, Some("üñ.txt")),
            (r#"form-data; name="f"; filename="open.txt"#, Some("open.txt")),
            // urllib3
            (r#"form-data; name="f"; filename*=utf-8''%C3%BC%20x.txt"#, Some("ü x.txt")),
            (r#"form-data; name="f"; filename="u.txt"; filename*=UTF-8'de'%C3%BC.txt"#, Some("ü.txt")),
            (r#"form-data; name="f"; filename*=iso-8859-1''%FC.txt; filename=u.txt"#, Some("ü.txt")),
            (r#"form-data; name="f"; filename*=UTF-8''%FF.txt; filename=u.txt"#, Some("u.txt")),
            (r#"form-data; name="f"; filename*=koi8-r''%FF.txt; filename=u.txt"#, Some("u.txt")),
            // none
            (r#"form-data; name="f"; filename="""#, Some("")),
            (r#"form-data; name="f"; filename="#, Some("")),
            (r#"form-data; name="filename""#, None),
            (r#"form-data; name="f=\"filename=x""#, None),
            (r#"form-data; name="f"; xfilename="a""#, None),
            (r#"form-data; name="f"; inline; filename="a""#, Some("a")),
        ] {
            assert_eq!(Disposition::read(value).file.as_deref(), file, "{value}");
        }
        assert_eq!(Disposition::read(r#"form-data; name="a\"b%22""#).name.as_deref(), Some("a\"b\""));
        assert_eq!(Disposition::read("form-data"), Disposition::default());
    }
}
