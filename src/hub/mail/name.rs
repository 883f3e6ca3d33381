//! File names out of mail: a sender's word made safe for every disk and door, and names of our own where it gave none.

/// Longest name made, in bytes: room is left for ` (2)` and for file systems that count differently.
pub(super) const LONGEST_NAME: usize = 200;
/// Longest thing after the last dot that is still taken for an extension and kept when a name is cut.
const LONGEST_EXTENSION: usize = 16;

/// Longest name behind a leading dot that is taken for an extension, not for a name.
const LONGEST_LONE: usize = 7;

/// Names Windows keeps for devices, with any extension.
const WINDOWS_DEVICES: &[&str] = &["aux", "con", "nul", "prn"];

/// A plain file name out of whatever a sender wrote; `None` when nothing usable is left.
///
/// The result has no separator, control character, leading dot, reserved word or text-direction trick in it.
pub(super) fn plain_name(raw: &str) -> Option<String> {
    let one = one_name(raw);
    let mut name = String::with_capacity(one.len().min(LONGEST_NAME));
    for letter in one.chars().filter(|letter| !is_hidden(*letter)) {
        match letter {
            '<' | '>' | ':' | '"' | '|' | '?' | '*' => name.push('_'),
            letter if letter.is_whitespace() => name.push(' '),
            letter => name.push(letter),
        }
        if name.len() > 4 * LONGEST_NAME {
            break;
        }
    }
    let name = name.trim_start_matches(['.', ' ']).trim_end_matches(['.', ' ']);
    let name = shortened(name, LONGEST_NAME);
    let name = name.trim_end_matches(['.', ' ']);
    match name {
        "" => None,
        name if is_device(name) => Some(format!("_{name}")),
        name => Some(name.to_owned()),
    }
}

/// One name out of a path. Of a path on somebody's disk the last name counts; any other slash is part of the name (a batch number, a date)
/// and becomes `_`, so that two names stay two.
fn one_name(raw: &str) -> String {
    let text = raw.trim();
    let begin = text.find(|letter: char| !letter.is_alphabetic()).unwrap_or(text.len());
    let drive = begin == 1 && matches!(text.get(begin..begin + 2), Some(":\\" | ":/"));
    let windows = drive || ["\\", "..\\", ".\\"].iter().any(|start| text.starts_with(start));
    let parts = text.split(['/', '\\']).map(str::trim).filter(|part| !matches!(*part, "" | "." | ".."));
    let parts: Vec<&str> = parts.collect();
    match windows {
        true => parts.last().map(|part| (*part).to_owned()).unwrap_or_default(),
        false => parts.join("_"),
    }
}

/// The extension of a name that is nothing else, with its dot: `.pdf`.
pub(super) fn lone_extension(raw: &str) -> Option<String> {
    let rest = one_name(raw);
    let rest = rest.trim_start_matches(['.', ' ', '_', '*', '?']);
    let dotted = raw.trim_end().strip_suffix(rest).is_some_and(|before| before.ends_with('.'));
    let plain = (1..=LONGEST_LONE).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (dotted && plain).then(|| format!(".{rest}"))
}

/// `name` with a number before its extension, for the second of the same name: `a (2).pdf`.
pub(super) fn numbered(name: &str, number: usize) -> String {
    let (stem, extension) = split_extension(name);
    let tail = format!(" ({number}){extension}");
    format!("{}{tail}", cut(stem, LONGEST_NAME.saturating_sub(tail.len())))
}

/// The extension for a media type, with its dot; `.bin` for what is not known.
pub(super) fn extension_of(media: &str) -> &'static str {
    match media {
        "application/gzip" => ".gz",
        "application/json" => ".json",
        "application/msword" => ".doc",
        "application/pdf" => ".pdf",
        "application/pgp-signature" => ".asc",
        "application/pkcs7-signature" | "application/x-pkcs7-signature" => ".p7s",
        "application/vnd.ms-excel" => ".xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => ".xlsx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => ".docx",
        "application/xml" | "text/xml" => ".xml",
        "application/zip" => ".zip",
        "audio/mpeg" => ".mp3",
        "audio/wav" | "audio/x-wav" => ".wav",
        "image/gif" => ".gif",
        "image/jpeg" | "image/jpg" | "image/pjpeg" => ".jpg",
        "image/png" => ".png",
        "image/tiff" => ".tif",
        "image/webp" => ".webp",
        "message/global" | "message/rfc822" => ".eml",
        "text/calendar" => ".ics",
        "text/csv" => ".csv",
        "text/html" => ".html",
        "text/plain" => ".txt",
        "text/vcard" => ".vcf",
        "video/mp4" => ".mp4",
        "video/quicktime" => ".mov",
        // Reports about a message, and the heads of messages, are lines of text.
        media if media.starts_with("text/") || media.starts_with("message/") => ".txt",
        _ => ".bin",
    }
}

/// The longest prefix of at most `most` bytes that ends between letters, keeping the extension.
fn shortened(name: &str, most: usize) -> String {
    if name.len() <= most {
        return name.to_owned();
    }
    let (stem, extension) = split_extension(name);
    format!("{}{extension}", cut(stem, most.saturating_sub(extension.len())).trim_end_matches(['.', ' ']))
}

/// The longest prefix of at most `most` bytes that ends between letters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// Stem and extension with its dot; the extension is empty where there is none worth keeping.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= LONGEST_EXTENSION => name.split_at(dot),
        _ => (name, ""),
    }
}

/// Letters nobody sees: controls, and marks that change the direction of what follows (`exe.fdp` shown as `pdf.exe`).
fn is_hidden(letter: char) -> bool {
    (letter.is_control() && letter != '\t')
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fffd}')
        || matches!(letter, '\u{2028}' | '\u{2029}')
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let port = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
    WINDOWS_DEVICES.contains(&stem.as_str())
        || port.is_some_and(|number| number.len() == 1 && number.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::RelPath;

    #[test]
    fn nasty_names_become_plain_ones() {
        let table = [
            ("scan.pdf", Some("scan.pdf")),
            ("  scan.pdf  ", Some("scan.pdf")),
            ("../../etc/passwd", Some("etc_passwd")),
            ("batch_A/17.pdf", Some("batch_A_17.pdf")),
            ("Report 02/03/2026", Some("Report 02_03_2026")),
            ("a\\b.pdf", Some("a_b.pdf")),
            ("\\\\host\\share\\scan.pdf", Some("scan.pdf")),
            ("\\host\\share\\scan.pdf", Some("scan.pdf")),
            ("D:/Scans/scan.pdf", Some("scan.pdf")),
            ("..\\..\\cmd.exe", Some("cmd.exe")),
            ("C:\\Users\\me\\scan.pdf", Some("scan.pdf")),
            ("/abs/", Some("abs")),
            ("..", None),
            (".", None),
            ("", None),
            ("   ", None),
            ("///", None),
            (".htaccess", Some("htaccess")),
            (".stoa-stage", Some("stoa-stage")),
            ("..stoa", Some("stoa")),
            ("a\0b\r\nc.txt", Some("abc.txt")),
            ("tab\there", Some("tab here")),
            ("what?*<>|\".pdf", Some("what______.pdf")),
            ("name. . .", Some("name")),
            ("CON", Some("_CON")),
            ("con.txt", Some("_con.txt")),
            ("LPT1.pdf", Some("_LPT1.pdf")),
            ("COMET.txt", Some("COMET.txt")),
            ("COM10", Some("COM10")),
            ("invoice\u{202e}fdp.exe", Some("invoicefdp.exe")),
            ("zero\u{200b}width", Some("zerowidth")),
            ("Rechnung März.pdf", Some("Rechnung März.pdf")),
            ("請求書.pdf", Some("請求書.pdf")),
            ("no\u{a0}break", Some("no break")),
            ("a:b.txt", Some("a_b.txt")),
            ("%2e%2e%2f", Some("%2e%2e%2f")),
            ("-rf", Some("-rf")),
        ];
        for (raw, expected) in table {
            assert_eq!(plain_name(raw).as_deref(), expected, "{raw:?}");
        }
    }

    #[test]
    fn a_name_that_is_only_an_extension_is_told() {
        for (raw, expected) in [
            (".pdf", Some(".pdf")),
            ("  .PDF ", Some(".PDF")),
            ("*.pdf", Some(".pdf")),
            ("..pdf", Some(".pdf")),
            ("scan.pdf", None),
            ("pdf", None),
            (".", None),
            (".htaccess", None),
            (".stoa-stage", None),
        ] {
            assert_eq!(lone_extension(raw).as_deref(), expected, "{raw}");
        }
    }

    #[test]
    fn a_long_name_keeps_its_extension() {
        let name = plain_name(&format!("{}.pdf", "ä".repeat(300))).unwrap();
        assert!(name.len() <= LONGEST_NAME && name.ends_with("ä.pdf"), "{name}");
        let name = plain_name(&format!("a.{}", "b".repeat(300))).unwrap();
        assert_eq!(name.len(), LONGEST_NAME);
        assert_eq!(numbered("scan.pdf", 2), "scan (2).pdf");
        assert_eq!(numbered("scan", 3), "scan (3)");
        assert!(numbered(&name, 12).len() <= LONGEST_NAME);
    }

    proptest! {
        #[test]
        fn every_name_made_is_one_the_store_takes(raw in "\\PC{0,40}|[./\\\\\\x00-\\x1f a.stoaCONlpt1:*]{0,40}|.{0,400}") {
            if let Some(name) = plain_name(&raw) {
                prop_assert!(RelPath::root().join(&name).is_ok(), "{:?}", name);
                prop_assert!(name.len() <= LONGEST_NAME + 1);
                prop_assert_eq!(plain_name(&name), Some(name));
            }
        }
    }
}
