//! POP3 commands: one whole line in, one command or the reason why not out. Pure; never panics.

use nom::bytes::complete::take_while1;
use nom::character::complete::{digit1, space1};
use nom::combinator::{all_consuming, map, opt};
use nom::sequence::preceded;
use nom::{IResult, Parser};
use zeroize::Zeroizing;

use crate::proto::dialogue::Malformed;
use crate::proto::sasl::Mechanism;

/// Longest command line; RFC 2449 §4 asks for 255 octets, long passwords for more.
pub const LONGEST_COMMAND: usize = 2048;
/// Longest line while a SASL exchange waits for an answer, RFC 5034 §4.
pub const LONGEST_ANSWER: usize = 12_288;

/// What a client may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A line while a SASL exchange waits for one.
    Answer(Zeroizing<Vec<u8>>),
    /// `AUTH mechanism [initial]`; the mechanism is `None` when it is not one of ours.
    Auth {
        /// Which exchange.
        mechanism: Option<Mechanism>,
        /// Initial response, still in base64.
        initial: Option<Zeroizing<Vec<u8>>>,
    },
    /// `CAPA`.
    Capa,
    /// `DELE n`.
    Dele(Number),
    /// `LIST [n]`.
    List(Option<Number>),
    /// `AUTH` alone: which mechanisms are there? Older than RFC 5034, still asked.
    Mechanisms,
    /// `NOOP`.
    Noop,
    /// `PASS password`: everything after the blank, blanks included.
    Pass(Zeroizing<Vec<u8>>),
    /// `QUIT`.
    Quit,
    /// `RETR n`.
    Retr(Number),
    /// `RSET`.
    Rset,
    /// `STAT`.
    Stat,
    /// `STLS`.
    Stls,
    /// `TOP n lines`.
    Top(Number, u64),
    /// `UIDL [n]`.
    Uidl(Option<Number>),
    /// `USER name`.
    User(String),
}

/// A message's number in this session, counted from 1; larger than fits is as large as fits.
pub type Number = u64;

/// First words of other languages: a browser can be made to send them.
const FOREIGN: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH"];

impl Command {
    /// Reads one line without its end.
    ///
    /// # Errors
    /// Why it is no command.
    pub fn parse(line: &[u8]) -> Result<Self, Malformed> {
        if let Some(what) = foreign(line) {
            return Err(Malformed::Foreign(what));
        }
        let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (verb, rest) = line.split_at(at);
        let verb = verb.to_ascii_uppercase();
        if line.len() > if verb == b"AUTH" { LONGEST_ANSWER } else { LONGEST_COMMAND } {
            return Err(Malformed::TooLong);
        }
        match verb.as_slice() {
            // A password is bytes, and a blank in it is one of them.
            b"PASS" => password(rest),
            b"CAPA" => bare(rest, "CAPA", Self::Capa),
            b"NOOP" => bare(rest, "NOOP", Self::Noop),
            b"QUIT" => bare(rest, "QUIT", Self::Quit),
            b"RSET" => bare(rest, "RSET", Self::Rset),
            b"STAT" => bare(rest, "STAT", Self::Stat),
            b"STLS" => bare(rest, "STLS", Self::Stls),
            b"AUTH" => auth(text(rest)?),
            b"DELE" => one(rest, "DELE").map(Self::Dele),
            b"RETR" => one(rest, "RETR").map(Self::Retr),
            b"LIST" => at_most_one(rest, "LIST").map(Self::List),
            b"UIDL" => at_most_one(rest, "UIDL").map(Self::Uidl),
            b"TOP" => top(text(rest)?),
            b"USER" => user(text(rest)?),
            _ => Err(Malformed::Unknown),
        }
    }
}

/// A line that another protocol sends first, in words for the log.
fn foreign(line: &[u8]) -> Option<&'static str> {
    if line.starts_with(&[0x16, 0x03]) {
        return Some("a TLS handshake on a port that speaks plain POP3 first; use STLS or an implicit-TLS port");
    }
    if line == b"\0" || line.starts_with(b"PROXY ") {
        return Some("a PROXY header from an address that is not in limits.proxy_from");
    }
    let verb = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let http = line.len() > verb.len() && FOREIGN.iter().any(|known| known.as_bytes() == verb);
    http.then_some("an HTTP request on the POP3 port")
}

fn text(rest: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(rest).map_err(|_| Malformed::Syntax("a command is ASCII or UTF-8".into()))?;
    match text.chars().any(char::is_control) {
        true => Err(Malformed::Syntax("a command holds no control characters".into())),
        false => Ok(text.trim_end_matches(' ')),
    }
}

fn bare(rest: &[u8], verb: &'static str, command: Command) -> Result<Command, Malformed> {
    match rest.iter().all(|byte| *byte == b' ') {
        true => Ok(command),
        false => Err(Malformed::Syntax(format!("{verb} takes no argument").into())),
    }
}

fn password(rest: &[u8]) -> Result<Command, Malformed> {
    match rest.strip_prefix(b" ") {
        Some(password) if !password.is_empty() && !password.contains(&0) => Ok(Command::Pass(password.to_vec().into())),
        _ => Err(Malformed::Syntax("the form is PASS password".into())),
    }
}

fn user(rest: &str) -> Result<Command, Malformed> {
    let wrong = || Malformed::Syntax("the form is USER name".into());
    let name = argument(take_while1(|letter: char| letter != ' ')).parse(rest).map_err(|_| wrong())?.1;
    Ok(Command::User(name.to_owned()))
}

fn auth(rest: &str) -> Result<Command, Malformed> {
    let word = || take_while1(|letter: char| letter != ' ');
    let mut arguments = all_consuming((opt(preceded(space1, word())), opt(preceded(space1, word()))));
    let parsed: IResult<&str, (Option<&str>, Option<&str>)> = arguments.parse(rest);
    match parsed {
        Ok((_, (Some(mechanism), initial))) => Ok(Command::Auth {
            mechanism: Mechanism::named(mechanism),
            initial: initial.map(|initial| initial.as_bytes().to_vec().into()),
        }),
        Ok((_, (None, _))) => Ok(Command::Mechanisms),
        Err(_) => Err(Malformed::Syntax("AUTH takes a mechanism and at most one initial response".into())),
    }
}

fn one(rest: &[u8], verb: &'static str) -> Result<Number, Malformed> {
    let wrong = || Malformed::Syntax(format!("{verb} takes the number of a message").into());
    argument(number).parse(text(rest)?).map(|(_, number)| number).map_err(|_| wrong())
}

fn at_most_one(rest: &[u8], verb: &'static str) -> Result<Option<Number>, Malformed> {
    match text(rest)? {
        "" => Ok(None),
        _ => one(rest, verb).map(Some),
    }
}

fn top(rest: &str) -> Result<Command, Malformed> {
    let wrong = || Malformed::Syntax("TOP takes the number of a message and a count of lines".into());
    let (_, (message, lines)) = argument((number, preceded(space1, number))).parse(rest).map_err(|_| wrong())?;
    Ok(Command::Top(message, lines))
}

/// A blank, then this and nothing else.
fn argument<'a, P, O>(what: P) -> impl Parser<&'a str, Output = O, Error = nom::error::Error<&'a str>>
where
    P: Parser<&'a str, Output = O, Error = nom::error::Error<&'a str>>,
{
    all_consuming(preceded(space1, what))
}

fn number(input: &str) -> IResult<&str, Number> {
    map(digit1, |digits: &str| digits.parse().unwrap_or(Number::MAX)).parse(input)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_read_in_any_case() {
        let table: &[(&[u8], Command)] = &[
            (b"stat", Command::Stat),
            (b"Noop ", Command::Noop),
            (b"RETR 12", Command::Retr(12)),
            (b"retr  012 ", Command::Retr(12)),
            (b"DELE 99999999999999999999999", Command::Dele(u64::MAX)),
            (b"LIST", Command::List(None)),
            (b"LIST 3", Command::List(Some(3))),
            (b"UIDL ", Command::Uidl(None)),
            (b"TOP 1 0", Command::Top(1, 0)),
            (b"USER alice@example.org", Command::User("alice@example.org".into())),
            (b"PASS  with blanks ", Command::Pass(b" with blanks ".to_vec().into())),
            (b"pass \xff\xfe", Command::Pass(b"\xff\xfe".to_vec().into())),
            (b"AUTH", Command::Mechanisms),
            (b"AUTH plain", Command::Auth { mechanism: Some(Mechanism::Plain), initial: None }),
            (b"AUTH PLAIN =", Command::Auth { mechanism: Some(Mechanism::Plain), initial: Some(b"=".to_vec().into()) }),
            (b"AUTH CRAM-MD5", Command::Auth { mechanism: None, initial: None }),
        ];
        for (line, command) in table {
            assert_eq!(Command::parse(line).as_ref(), Ok(command), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        for line in ["RETR", "RETR x", "RETR -1", "RETR 1 2", "DELE ", "LIST a", "TOP 1", "TOP 1 -1", "TOP 1 2 3"] {
            assert!(matches!(Command::parse(line.as_bytes()), Err(Malformed::Syntax(_))), "{line}");
        }
        for line in ["STAT 1", "QUIT now", "USER", "USER a b", "PASS", "PASS ", "CAPA x", "AUTH a b c", "USER a\tb"] {
            assert!(matches!(Command::parse(line.as_bytes()), Err(Malformed::Syntax(_))), "{line}");
        }
        for line in ["", " ", "STATS", "APOP a b", "LAST", "STAT\t", " STAT", "XTND"] {
            assert_eq!(Command::parse(line.as_bytes()), Err(Malformed::Unknown), "{line}");
        }
    }

    #[test]
    fn long_lines_and_other_languages_are_seen() {
        assert_eq!(Command::parse(format!("PASS {}", "x".repeat(3000)).as_bytes()), Err(Malformed::TooLong));
        assert!(Command::parse(format!("AUTH PLAIN {}", "x".repeat(3000)).as_bytes()).is_ok());
        for line in [&b"GET / HTTP/1.1"[..], b"\x16\x03\x01", b"\0", b"PROXY TCP4 1 2 3 4"] {
            assert!(matches!(Command::parse(line), Err(Malformed::Foreign(_))), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_answer(line in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn any_arguments_are_some_answer(verb in "USER|PASS|TOP|RETR|LIST|UIDL|DELE|AUTH", rest in "[ \\PC]{0,40}") {
            let _ = Command::parse(format!("{verb}{rest}").as_bytes());
        }
    }
}
