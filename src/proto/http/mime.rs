//! Content types by file extension, and which of them a browser might run.
//!
//! The table is that of `mime_guess`; here are only the types that it lacks, or has in a form that programs do not expect.

use std::collections::HashMap;
use std::sync::LazyLock;

const BYTES: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";

/// Sorted by extension, for the binary search.
const OWN: &[(&str, &str)] = &[
    ("adoc", TEXT),
    ("azw3", "application/vnd.amazon.ebook"),
    ("bib", TEXT),
    ("cjs", "text/javascript; charset=utf-8"),
    ("deb", "application/vnd.debian.binary-package"),
    ("diff", TEXT),
    ("docm", "application/vnd.ms-word.document.macroenabled.12"),
    ("dwg", "image/vnd.dwg"),
    ("go", TEXT),
    ("gpg", "application/pgp-encrypted"),
    ("har", "application/json"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ipynb", "application/json"),
    ("java", TEXT),
    ("jsonl", "application/jsonl"),
    ("key", "application/vnd.apple.keynote"),
    ("kt", TEXT),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4s", "video/iso.segment"),
    ("m4v", "video/mp4"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("numbers", "application/vnd.apple.numbers"),
    ("obj", "model/obj"),
    ("otf", "font/otf"),
    ("pages", "application/vnd.apple.pages"),
    ("patch", TEXT),
    ("pptm", "application/vnd.ms-powerpoint.presentation.macroenabled.12"),
    ("psd", "image/vnd.adobe.photoshop"),
    ("rar", "application/vnd.rar"),
    ("rb", TEXT),
    ("rpm", "application/x-rpm"),
    ("rs", TEXT),
    ("rst", TEXT),
    ("sh", TEXT),
    ("sql", TEXT),
    ("sqlite", "application/vnd.sqlite3"),
    ("stl", "model/stl"),
    ("swift", TEXT),
    ("tex", TEXT),
    ("tgz", "application/gzip"),
    ("toml", TEXT),
    ("ts", "video/mp2t"),
    ("vcf", "text/vcard; charset=utf-8"),
    ("vsdx", "application/vnd.ms-visio.drawing"),
    ("woff", "font/woff"),
    ("xlsb", "application/vnd.ms-excel.sheet.binary.macroenabled.12"),
    ("xml", "application/xml"),
    ("xsl", "application/xml"),
    ("yaml", TEXT),
    ("yml", TEXT),
    ("zst", "application/zstd"),
];

/// Longest extension worth looking up.
const LONGEST: usize = 16;

/// Types of text with their charset, made once.
static TEXTS: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let all = mime_guess::get_extensions("text", "*").unwrap_or_default();
    let kinds = all.iter().flat_map(|extension| mime_guess::from_ext(extension).iter_raw());
    let texts = kinds.filter(|kind| kind.starts_with("text/"));
    texts.map(|kind| (kind, &*Box::leak(format!("{kind}; charset=utf-8").into_boxed_str()))).collect()
});

/// The type of a file by its name; bytes of an unknown kind are just bytes.
pub fn of(name: &str) -> &'static str {
    let Some((_, extension)) = name.rsplit_once('.').filter(|(_, extension)| extension.len() <= LONGEST) else {
        return BYTES;
    };
    let lower = extension.to_ascii_lowercase();
    if let Ok(at) = OWN.binary_search_by_key(&lower.as_str(), |(known, _)| known) {
        return OWN.get(at).map_or(BYTES, |(_, kind)| kind);
    }
    let kind = mime_guess::from_ext(&lower).first_raw().unwrap_or(BYTES);
    TEXTS.get(kind).copied().unwrap_or(kind)
}

/// What no browser runs in the page's name, whatever its bytes are. Everything else is shown sandboxed.
pub fn is_inert(kind: &str) -> bool {
    kind == "application/pdf"
        || kind.starts_with("audio/")
        || kind.starts_with("video/")
        || kind.starts_with("font/")
        || (kind.starts_with("image/") && !kind.starts_with("image/svg"))
}

/// What no browser shows, only saves.
pub fn is_saved(kind: &str) -> bool {
    const KINDS: [&str; 10] = [
        "application/gzip",
        "application/octet-stream",
        "application/vnd.debian.binary-package",
        "application/vnd.rar",
        "application/x-7z-compressed",
        "application/x-bzip2",
        "application/x-tar",
        "application/x-xz",
        "application/zip",
        "application/zstd",
    ];
    KINDS.contains(&kind)
}

/// Text and its like, which compression makes much smaller. What is compressed by its nature never is again.
pub fn shrinks(name: &str, kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if name.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("svgz")) {
        return false;
    }
    essence.starts_with("text/")
        || essence.ends_with("+xml")
        || essence.ends_with("+json")
        || matches!(
            essence,
            "application/json"
                | "application/jsonl"
                | "application/javascript"
                | "application/manifest+json"
                | "application/rtf"
                | "application/wasm"
                | "application/xml"
                | "application/vnd.apple.mpegurl"
                | "font/otf"
                | "font/ttf"
                | "image/bmp"
                | "image/vnd.microsoft.icon"
        )
}

/// `type/subtype`, with or without parameters, that a header can carry.
pub fn is_type(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    essence.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub))
        && kind.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_the_search_finds_everything() {
        assert!(OWN.is_sorted_by_key(|(extension, _)| *extension));
        for (extension, kind) in OWN {
            assert_eq!(of(&format!("a.{extension}")), *kind);
            assert_ne!(mime_guess::from_ext(extension).first_raw(), Some(*kind), "{extension}: the table has it");
        }
    }

    #[test]
    fn usual_files_have_the_types_that_programs_expect() {
        for (names, kind) in [
            ("a.webmanifest", "application/manifest+json"),
            ("a.vtt", "text/vtt; charset=utf-8"),
            ("a.map a.txt a.log a.ini a.py a.c", TEXT),
            ("a.jfif a.jpg a.JPEG a.jpe", "image/jpeg"),
            ("a.apng", "image/apng"),
            ("a.avif", "image/avif"),
            ("a.heic", "image/heic"),
            ("a.webp", "image/webp"),
            ("a.svg a.svgz", "image/svg+xml"),
            ("a.atom", "application/atom+xml"),
            ("a.rss", "application/rss+xml"),
            ("a.apk", "application/vnd.android.package-archive"),
            ("a.3gp", "video/3gpp"),
            ("a.mp4", "video/mp4"),
            ("a.webm", "video/webm"),
            ("a.m3u8", "application/vnd.apple.mpegurl"),
            ("a.mpd", "application/dash+xml"),
            ("a.html a.htm", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js a.mjs", "text/javascript; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.csv", "text/csv; charset=utf-8"),
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.ics", "text/calendar; charset=utf-8"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("a.ttf", "font/ttf"),
            ("a.pdf", "application/pdf"),
            ("a.zip", "application/zip"),
            ("a.epub", "application/epub+zip"),
            ("a.odt", "application/vnd.oasis.opendocument.text"),
            ("a.eml", "message/rfc822"),
            ("a.exe a.iso a.dmg a.bin a.xyzzy", BYTES),
        ] {
            for name in names.split(' ') {
                assert_eq!(of(name), kind, "{name}");
            }
        }
    }

    #[test]
    fn names_without_a_known_extension_are_bytes() {
        for name in ["", "README", "a.", "a.unknown", ".html.averylongone"] {
            assert_eq!(of(name), "application/octet-stream", "{name}");
        }
        assert_eq!(of("A.PDF"), "application/pdf");
    }

    #[test]
    fn whatever_a_browser_could_run_is_not_inert() {
        for name in ["a.html", "a.svg", "a.xml", "a.xhtml", "a.txt", "a"] {
            assert!(!is_inert(of(name)), "{name}");
        }
        assert!(is_inert(of("a.pdf")) && is_inert(of("a.jpg")));
    }

    #[test]
    fn only_what_no_browser_shows_is_saved() {
        for name in ["a", "a.bin", "a.zip", "a.tar", "a.tgz", "a.7z", "a.deb"] {
            assert!(is_saved(of(name)) && !is_inert(of(name)), "{name}");
        }
        for name in ["a.html", "a.svg", "a.xml", "a.js", "a.txt", "a.pdf", "a.png", "a.wasm", "a.docx"] {
            assert!(!is_saved(of(name)), "{name}");
        }
    }

    #[test]
    fn what_is_compressed_already_is_not_text() {
        for name in ["a.html", "a.css", "a.svg", "a.json", "a.txt", "a.xml", "a.wasm"] {
            assert!(shrinks(name, of(name)), "{name}");
        }
        for name in ["a.svgz", "a.png", "a.pdf", "a.zip", "a.woff2", "a.docx", "a.mp4", "a"] {
            assert!(!shrinks(name, of(name)), "{name}");
        }
        assert!(is_type("text/x-md; charset=utf-8") && !is_type("text") && !is_type("text/a\nb") && !is_type("/"));
    }
}
