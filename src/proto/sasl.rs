//! SASL exchanges shared by the line protocols: PLAIN (RFC 4616) and LOGIN.
//!
//! Pure: base64 lines in, challenges or credentials out. Nothing here knows an account.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Some devices forget the padding, or leave bits after it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// `Username:`. Some copiers hang up on any other text (smtp-oauth-relay #57).
const ASK_NAME: &str = "VXNlcm5hbWU6";
/// `Password:`.
const ASK_PASSWORD: &str = "UGFzc3dvcmQ6";

/// The mechanisms there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password in two answers; never standardised, spoken by most devices.
    Login,
    /// RFC 4616.
    Plain,
}

impl Mechanism {
    /// By its word, in any case.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        match word.to_ascii_uppercase().as_str() {
            "LOGIN" => Some(Self::Login),
            "PLAIN" => Some(Self::Plain),
            _ => None,
        }
    }
}

/// What a client proved itself with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Sign-in name.
    pub name: String,
    /// Password, as bytes: it need not be UTF-8.
    pub password: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, …)", self.name)
    }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this challenge (already base64) and wait for a line.
    Challenge(&'static str),
    /// The exchange is over.
    Done(Credentials),
}

/// Why an exchange failed before any password was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client gave up with `*`.
    Cancelled,
    /// Not base64, or not what the mechanism says.
    Garbled,
    /// It asks to act as somebody else.
    OtherIdentity,
}

/// One exchange under way.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    name: Option<String>,
}

impl Exchange {
    /// Begins; `initial` is the initial response in base64, `=` for an empty one (RFC 4954 §4).
    ///
    /// # Errors
    /// What is wrong with the initial response.
    pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> (Self, Result<Step, Fault>) {
        let mut exchange = Self { mechanism, name: None };
        let step = match (initial, mechanism) {
            (None, Mechanism::Plain) => Ok(Step::Challenge("")),
            (None, Mechanism::Login) => Ok(Step::Challenge(ASK_NAME)),
            (Some(b"="), _) => exchange.take(&[]),
            (Some(line), _) => exchange.answer(line),
        };
        (exchange, step)
    }

    /// Takes the client's next line.
    ///
    /// # Errors
    /// Why the exchange is over.
    pub fn answer(&mut self, line: &[u8]) -> Result<Step, Fault> {
        if line == b"*" {
            return Err(Fault::Cancelled);
        }
        let answer = Zeroizing::new(LENIENT.decode(line.trim_ascii()).map_err(|_| Fault::Garbled)?);
        self.take(&answer)
    }

    fn take(&mut self, answer: &[u8]) -> Result<Step, Fault> {
        match self.mechanism {
            Mechanism::Plain => plain(answer).map(Step::Done),
            Mechanism::Login => match self.name.take() {
                None => {
                    self.name = Some(text(answer)?);
                    Ok(Step::Challenge(ASK_PASSWORD))
                }
                Some(name) => Ok(Step::Done(Credentials { name, password: answer.to_vec().into() })),
            },
        }
    }
}

/// RFC 4616: `[authzid] NUL authcid NUL passwd`.
fn plain(message: &[u8]) -> Result<Credentials, Fault> {
    let mut parts = message.splitn(3, |byte| *byte == 0);
    let (Some(identity), Some(name), Some(password)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Fault::Garbled);
    };
    if password.contains(&0) || name.is_empty() {
        return Err(Fault::Garbled);
    }
    if !identity.is_empty() && identity != name {
        return Err(Fault::OtherIdentity);
    }
    Ok(Credentials { name: text(name)?, password: password.to_vec().into() })
}

fn text(bytes: &[u8]) -> Result<String, Fault> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Fault::Garbled)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD as BASE64;
    use proptest::prelude::*;

    use super::*;

    fn done(step: Result<Step, Fault>) -> (String, Vec<u8>) {
        match step {
            Ok(Step::Done(credentials)) => (credentials.name, credentials.password.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_comes_with_or_without_an_initial_response() {
        let message = BASE64.encode(b"\0ann\0s\xffcret");
        let expected = ("ann".to_owned(), b"s\xffcret".to_vec());
        assert_eq!(done(Exchange::begin(Mechanism::Plain, Some(message.as_bytes())).1), expected);
        assert_eq!(done(Exchange::begin(Mechanism::Plain, Some(message.trim_end_matches('=').as_bytes())).1), expected);
        let (mut exchange, step) = Exchange::begin(Mechanism::Plain, None);
        assert_eq!(step, Ok(Step::Challenge("")));
        assert_eq!(done(exchange.answer(message.as_bytes())), expected);
    }

    #[test]
    fn login_prompts_with_the_exact_words_copiers_know() {
        let (mut exchange, step) = Exchange::begin(Mechanism::Login, None);
        assert_eq!(step, Ok(Step::Challenge("VXNlcm5hbWU6")));
        assert_eq!(exchange.answer(b"YW5u"), Ok(Step::Challenge("UGFzc3dvcmQ6")));
        assert_eq!(done(exchange.answer(b"c2VjcmV0")), ("ann".into(), b"secret".to_vec()));
        let (_, step) = Exchange::begin(Mechanism::Login, Some(b"YW5u"));
        assert_eq!(step, Ok(Step::Challenge("UGFzc3dvcmQ6")));
    }

    #[test]
    fn a_broken_exchange_ends_without_credentials() {
        let begin = |line: &[u8]| Exchange::begin(Mechanism::Plain, Some(line)).1;
        assert_eq!(begin(b"*"), Err(Fault::Cancelled));
        assert_eq!(begin(b"="), Err(Fault::Garbled));
        assert_eq!(begin(b"!!!"), Err(Fault::Garbled));
        assert_eq!(begin(BASE64.encode(b"bob\0ann\0x").as_bytes()), Err(Fault::OtherIdentity));
        assert_eq!(begin(BASE64.encode(b"\0ann").as_bytes()), Err(Fault::Garbled));
        assert_eq!(begin(BASE64.encode(b"\0\0x").as_bytes()), Err(Fault::Garbled));
        assert_eq!(begin(BASE64.encode(b"\0ann\0x\0y").as_bytes()), Err(Fault::Garbled));
        let shown = format!("{:?}", Credentials { name: "ann".into(), password: b"secret".to_vec().into() });
        assert!(!shown.contains("secret"));
    }

    proptest! {
        #[test]
        fn any_lines_end_somewhere(first in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)), then in proptest::collection::vec(any::<u8>(), 0..40)) {
            for mechanism in [Mechanism::Plain, Mechanism::Login] {
                let (mut exchange, _) = Exchange::begin(mechanism, first.as_deref());
                let _ = exchange.answer(&then);
            }
        }
    }
}
