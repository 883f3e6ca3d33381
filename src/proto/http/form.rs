//! `application/x-www-form-urlencoded`: query strings and small forms.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use zeroize::Zeroize;

/// Largest form that is read.
pub const LARGEST: usize = 16 << 10;

/// Names and values, decoded; what is not UTF-8 is left out.
pub fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name)?, decode(value)?))
    })
}

fn decode(text: &str) -> Option<String> {
    let blank: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_decode_str(&blank).decode_utf8().ok().map(Cow::into_owned)
}

/// A form's fields; the first of a name counts. They are wiped at the end: one of them may be a password.
pub struct Form(Vec<(String, String)>);

impl Drop for Form {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|(_, value)| value.zeroize());
    }
}

impl Form {
    /// Reads a form's body.
    pub fn read(body: &[u8]) -> Self {
        Self(pairs(std::str::from_utf8(body).unwrap_or_default()).collect())
    }

    /// A field; empty when it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Every field of a name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_as_a_browser_encodes_them() {
        let form = Form::read(b"name=J%C3%BCrgen+B&password=a%2Bb%26c&empty=&name=second&bad=%ff");
        assert_eq!(form.field("name"), "J\u{fc}rgen B");
        assert_eq!(form.field("password"), "a+b&c");
        assert_eq!((form.field("empty"), form.field("absent"), form.field("bad")), ("", "", ""));
    }
}
