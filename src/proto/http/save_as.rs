//! `Content-Disposition` (RFC 6266): the name under which an answer is saved.

use crate::proto::http::target;

/// `attachment` with the name in ASCII for programs that know nothing else, and as it is (RFC 8187).
pub fn attachment(name: &str) -> String {
    let plain: String = name.chars().map(plain).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", target::escape(name))
}

/// RFC 6266 appendix D: nothing that a quoted string or an old reader takes for something else.
fn plain(sign: char) -> char {
    match sign {
        '"' | '\\' | '%' | '/' => '_',
        ' '..='~' => sign,
        _ => '_',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_an_ascii_form_that_is_one_quoted_string() {
        for (name, value) in [
            ("a b.txt", r#"attachment; filename="a b.txt"; filename*=UTF-8''a%20b.txt"#),
            (
                "Übersicht Mai.pdf",
                r#"attachment; filename="_bersicht Mai.pdf"; filename*=UTF-8''%C3%9Cbersicht%20Mai.pdf"#,
            ),
            ("a\"b\\c%41.txt", r#"attachment; filename="a_b_c_41.txt"; filename*=UTF-8''a%22b%5Cc%2541.txt"#),
            ("a\r\nX: y", r#"attachment; filename="a__X: y"; filename*=UTF-8''a%0D%0AX%3A%20y"#),
            ("日本.zip", r#"attachment; filename="__.zip"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.zip"#),
            ("it's;x=1.txt", r#"attachment; filename="it's;x=1.txt"; filename*=UTF-8''it%27s%3Bx%3D1.txt"#),
        ] {
            assert_eq!(attachment(name), value);
        }
    }
}
