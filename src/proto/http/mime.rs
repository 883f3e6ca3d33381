//! Content types by file extension, and which of them a browser might run.

/// Sorted by extension, for the binary search.
const TYPES: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("bin", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("c", "text/plain; charset=utf-8"),
    ("cfg", "text/plain; charset=utf-8"),
    ("conf", "text/plain; charset=utf-8"),
    ("cpp", "text/plain; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("deb", "application/vnd.debian.binary-package"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("dwg", "image/vnd.dwg"),
    ("eml", "message/rfc822"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("go", "text/plain; charset=utf-8"),
    ("gpx", "application/gpx+xml"),
    ("gz", "application/gzip"),
    ("h", "text/plain; charset=utf-8"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("ini", "text/plain; charset=utf-8"),
    ("iso", "application/octet-stream"),
    ("jpe", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("log", "text/plain; charset=utf-8"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("ps", "application/postscript"),
    ("py", "text/plain; charset=utf-8"),
    ("rar", "application/vnd.rar"),
    ("rs", "text/plain; charset=utf-8"),
    ("rtf", "application/rtf"),
    ("sh", "text/plain; charset=utf-8"),
    ("sql", "text/plain; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("svgz", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tgz", "application/gzip"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("toml", "text/plain; charset=utf-8"),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("vcf", "text/vcard; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("xsl", "application/xml"),
    ("xz", "application/x-xz"),
    ("yaml", "text/plain; charset=utf-8"),
    ("yml", "text/plain; charset=utf-8"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// Longest extension worth looking up.
const LONGEST: usize = 8;

/// The type of a file by its name; bytes of an unknown kind are just bytes.
pub fn of(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if extension.len() > LONGEST {
        return "application/octet-stream";
    }
    let lower = extension.to_ascii_lowercase();
    TYPES
        .binary_search_by_key(&lower.as_str(), |(known, _)| known)
        .ok()
        .and_then(|at| TYPES.get(at))
        .map_or("application/octet-stream", |(_, kind)| kind)
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
        assert!(TYPES.is_sorted_by_key(|(extension, _)| *extension));
        for (extension, kind) in TYPES {
            assert_eq!(of(&format!("a.{extension}")), *kind);
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
