//! Bytes to text by the name of a charset, as mail programs write it.
//!
//! Nothing is dropped: where a charset is not known, or the bytes are not of it, UTF-8 is taken where it is valid and windows-1252 for
//! every other byte.

use charset::Charset;
use encoding_rs::{EUC_KR, Encoding, GBK, WINDOWS_1252};
use oem_cp::code_table::DECODING_TABLE_CP_MAP;

/// Shifts ISO-2022-KR to Korean.
const SHIFT_OUT: u8 = 0x0e;
/// Shifts it back.
const SHIFT_IN: u8 = 0x0f;

/// True when bytes of this charset can be read for certain.
pub(super) fn is_known(label: &str) -> bool {
    named(&normal(label)).is_some()
}

/// The text of bytes in a charset.
pub(super) fn decode(label: &str, bytes: &[u8]) -> String {
    match named(&normal(label)) {
        Some(Known::Page(page)) => one_byte(page, bytes),
        Some(Known::Korean) => seven_bit_korean(bytes),
        Some(Known::Chinese) => hz(bytes),
        Some(Known::Utf32) => utf32(bytes),
        Some(Known::Standard(charset)) => {
            let (text, _, malformed) = charset.decode(bytes);
            // Programs that say UTF-8 and send Latin-1 are common.
            if malformed && charset.name() == "UTF-8" { guess(bytes) } else { text.into_owned() }
        }
        None => guess(bytes),
    }
}

/// The text of bytes whose charset nobody said.
pub(super) fn guess(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.push_str(&WINDOWS_1252.decode_without_bom_handling(chunk.invalid()).0);
    }
    text
}

enum Known {
    /// HZ (RFC 1843).
    Chinese,
    /// ISO-2022-KR (RFC 1557).
    Korean,
    /// A code page of DOS.
    Page(u16),
    /// One of the Encoding Standard, or UTF-7.
    Standard(Charset),
    /// UTF-32, by its byte order mark.
    Utf32,
}

/// Lower case, without the blanks, quotes and language around it.
fn normal(label: &str) -> String {
    let label = label.trim_matches(|letter: char| letter.is_whitespace() || letter == '"' || letter == '\'');
    label.split('*').next().unwrap_or_default().to_ascii_lowercase().replace('_', "-")
}

fn named(label: &str) -> Option<Known> {
    match label {
        "iso-2022-kr" | "csiso2022kr" => return Some(Known::Korean),
        "hz-gb-2312" | "hz" | "hzgb" => return Some(Known::Chinese),
        "utf-32" | "utf32" | "utf-32be" | "utf-32le" => return Some(Known::Utf32),
        "utf7" | "unicode-1-1-utf-7" | "csunicode11utf7" => return Charset::for_label(b"utf-7").map(Known::Standard),
        _ => {}
    }
    standard(label)
        .or_else(|| standard(&label.replace('-', "_")))
        .or_else(|| standard(alias(label)?))
        .or_else(|| page(label))
}

fn standard(label: &str) -> Option<Known> {
    let known = label == "utf-7" || Encoding::for_label_no_replacement(label.as_bytes()).is_some();
    Charset::for_label(label.as_bytes()).filter(|_| known).map(Known::Standard)
}

/// Names that mail libraries know beyond those of the Encoding Standard.
fn alias(label: &str) -> Option<&'static str> {
    Some(match label {
        "utf-8-sig" | "utf8mb4" | "utf8-mb4" | "u8" => "utf-8",
        "latin-1" | "8859" | "iso8859" | "iso-8859" | "unknown-8bit" | "x-unknown" => "windows-1252",
        "latin-2" => "iso-8859-2",
        "latin-5" | "latin5" => "iso-8859-9",
        "latin-9" | "latin9" | "iso-8859-15-euro" => "iso-8859-15",
        "latin-10" | "latin10" => "iso-8859-16",
        "sjis" | "shiftjis" | "s-jis" | "mskanji" | "csshiftjis" => "shift_jis",
        "iso-2022-jp-1" | "iso-2022-jp-2" | "iso-2022-jp-3" | "iso-2022-jp-ext" | "iso2022-jp" | "iso2022jp" => {
            "iso-2022-jp"
        }
        "eucjp" | "ujis" | "euc-jisx0213" | "euc-jis-2004" => "euc-jp",
        "euckr" | "uhc" | "ks-c-5601" | "ksc5601" => "euc-kr",
        "euc-cn" | "euccn" | "gb-2312" | "gb2312-80" => "gbk",
        "big5-tw" | "big5hkscs" | "hkscs" => "big5",
        "koi8r" => "koi8-r",
        "koi8u" => "koi8-u",
        "macroman" | "mac-roman" | "x-macintosh" => "macintosh",
        "mac-cyrillic" | "maccyrillic" => "x-mac-cyrillic",
        "tis620" => "tis-620",
        _ => return iso(label).or_else(|| windows(label)),
    })
}

/// `iso-8859-2` in its many spellings.
fn iso(label: &str) -> Option<&'static str> {
    let rest = label.strip_prefix("iso").map(|rest| rest.trim_start_matches('-'))?;
    let number = rest.strip_prefix("8859").map(|rest| rest.trim_start_matches('-'))?;
    Encoding::for_label_no_replacement(format!("iso-8859-{number}").as_bytes()).map(Encoding::name)
}

/// Numbers that Windows gives to charsets.
fn windows(label: &str) -> Option<&'static str> {
    Some(match number(label)? {
        874 | 11874 => "windows-874",
        932 | 943 | 31936 => "shift_jis",
        936 | 20936 | 1386 | 51936 => "gbk",
        949 | 51949 | 20949 | 970 => "euc-kr",
        950 | 951 => "big5",
        1200 => "utf-16le",
        1201 => "utf-16be",
        1250 => "windows-1250",
        1251 => "windows-1251",
        1252 | 819 | 28591 => "windows-1252",
        1253 => "windows-1253",
        1254 | 28599 => "windows-1254",
        1255 => "windows-1255",
        1256 => "windows-1256",
        1257 => "windows-1257",
        1258 => "windows-1258",
        10000 => "macintosh",
        10007 => "x-mac-cyrillic",
        20866 | 878 => "koi8-r",
        21866 | 1168 => "koi8-u",
        20932 | 51932 => "euc-jp",
        28592 | 912 => "iso-8859-2",
        28593 => "iso-8859-3",
        28594 => "iso-8859-4",
        28595 | 915 => "iso-8859-5",
        28596 => "iso-8859-6",
        28597 | 813 => "iso-8859-7",
        28598 => "iso-8859-8",
        28603 => "iso-8859-13",
        28605 | 923 => "iso-8859-15",
        50220..=50222 => "iso-2022-jp",
        54936 => "gb18030",
        65001 => "utf-8",
        _ => return None,
    })
}

fn page(label: &str) -> Option<Known> {
    let number = match label {
        "cspc8codepage437" => 437,
        "cspc775baltic" => 775,
        "cspc850multilingual" => 850,
        "cspcp852" => 852,
        "cspc862latinhebrew" => 862,
        _ => number(label)?,
    };
    DECODING_TABLE_CP_MAP.contains_key(&number).then_some(Known::Page(number))
}

/// The number in `cp850`, `IBM-850`, `x-cp850`, `csIBM855`, `dos-850`, `windows-1252` or `850`.
fn number(label: &str) -> Option<u16> {
    let digits = label.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let word = label.strip_suffix(digits)?;
    let word = word.trim_end_matches('-').trim_start_matches("x-").trim_start_matches("cs");
    let known = ["", "codepage", "cp", "dos", "ibm", "ms", "oem", "win", "windows"];
    if known.contains(&word) { digits.parse().ok() } else { None }
}

fn one_byte(page: u16, bytes: &[u8]) -> String {
    match DECODING_TABLE_CP_MAP.get(&page) {
        Some(table) => table.decode_string_lossy(bytes),
        None => guess(bytes),
    }
}

/// Pairs of seven-bit bytes become those of EUC-KR.
fn seven_bit_korean(bytes: &[u8]) -> String {
    let (mut out, mut shifted, mut rest) = (Vec::with_capacity(bytes.len()), false, bytes);
    while let Some((byte, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(b"\x1b$)C") {
            rest = behind;
            continue;
        }
        rest = behind;
        match *byte {
            SHIFT_OUT => shifted = true,
            SHIFT_IN => shifted = false,
            letter if shifted && letter > b' ' => out.push(letter | 0x80),
            letter => out.push(letter),
        }
    }
    EUC_KR.decode_without_bom_handling(&out).0.into_owned()
}

/// `~{` and `~}` stand around pairs of seven-bit bytes of GB 2312.
fn hz(bytes: &[u8]) -> String {
    let (mut out, mut shifted, mut rest) = (Vec::with_capacity(bytes.len()), false, bytes);
    while let Some((byte, behind)) = rest.split_first() {
        (rest, shifted) = match rest {
            [b'~', b'{', behind @ ..] => (behind, true),
            [b'~', b'}', behind @ ..] => (behind, false),
            [b'~', b'~', behind @ ..] if !shifted => {
                out.push(b'~');
                (behind, shifted)
            }
            [b'~', b'\n', behind @ ..] => (behind, shifted),
            _ => {
                out.push(if shifted { *byte | 0x80 } else { *byte });
                (behind, shifted)
            }
        };
    }
    GBK.decode_without_bom_handling(&out).0.into_owned()
}

/// Big-endian unless the mark, or the zero bytes, say otherwise.
fn utf32(bytes: &[u8]) -> String {
    let little = matches!(bytes, [0xff, 0xfe, 0, 0, ..]) || matches!(bytes, [low, _, 0, 0, ..] if *low != 0);
    let letters = bytes.chunks_exact(4).filter_map(|four| {
        let four = <[u8; 4]>::try_from(four).ok()?;
        char::from_u32(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    });
    letters.filter(|letter| *letter != '\u{feff}').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets_are_known_by_all_the_names_they_have() {
        let table: &[(&str, &[u8], &str)] = &[
            ("utf-8", "nuotrauką".as_bytes(), "nuotrauką"),
            ("UTF8", "ä".as_bytes(), "ä"),
            ("utf-8*de", "ä".as_bytes(), "ä"),
            ("\"ISO-8859-1\"", b"M\xe4rz", "März"),
            ("iso8859_15", b"5\xa4", "5€"),
            ("latin-1", b"\xe4", "ä"),
            ("cp850", b"M\x84rz", "März"),
            ("IBM850", b"\x84", "ä"),
            ("csPC850Multilingual", b"\x84", "ä"),
            ("x-cp437", b"\x84", "ä"),
            ("dos-852", b"\xa5", "ą"),
            ("cp866", b"\x80", "А"),
            ("cp1257", b"\xe0", "ą"),
            ("windows-1251", b"\xc4", "Д"),
            ("cp932", b"\x90\xbf", "請"),
            ("ms936", b"\xc7\xeb", "请"),
            ("cp949", b"\xc7\xd1", "한"),
            ("950", b"\xbd\xd0", "請"),
            ("iso-2022-jp", b"\x1b$B@A\x1b(B", "請"),
            ("iso-2022-kr", b"\x1b$)C\x0eGQ\x0f!", "한!"),
            ("hz-gb-2312", b"~{Gk~}a~~", "请a~"),
            ("utf-7", b"M+AOQ-rz", "März"),
            ("utf-16be", b"\0M\0\xe4", "Mä"),
            ("utf-32le", b"M\0\0\0\xe4\0\0\0", "Mä"),
            ("x-nonsense", b"M\xe4rz", "März"),
            ("x-nonsense", "März".as_bytes(), "März"),
            ("utf-8", b"M\xe4rz", "März"),
        ];
        for (label, bytes, text) in table {
            assert_eq!(decode(label, bytes), *text, "{label}");
        }
        assert!(is_known("CP850") && is_known("utf-7") && !is_known("x-nonsense") && !is_known(""));
    }
}
