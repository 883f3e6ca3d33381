//! SMTP commands: one whole line in, one command or the reason why not out. Pure; never panics.

use nom::branch::alt;
use nom::bytes::complete::{tag_no_case, take_till1};
use nom::character::complete::{char, space0, space1};
use nom::combinator::{all_consuming, opt};
use nom::multi::many0;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};
use zeroize::Zeroizing;

use super::address::{self, Address};
use super::xclient::Xclient;
use crate::proto::dialogue::Malformed;
use crate::proto::sasl::Mechanism;

/// Longest command line; RFC 5321 §4.5.3.1.4 asks for 512, extensions and real clients for more.
pub const LONGEST_COMMAND: usize = 4096;
/// Longest AUTH line and SASL answer, RFC 4954 §4.
pub const LONGEST_ANSWER: usize = 12_288;
/// Longest name taken from EHLO.
const LONGEST_NAME: usize = 255;

/// What a client may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `AUTH mechanism [initial]`; the mechanism is `None` when it is not one of ours.
    Auth {
        /// Which exchange.
        mechanism: Option<Mechanism>,
        /// Initial response, still in base64.
        initial: Option<Zeroizing<Vec<u8>>>,
    },
    /// A line while a SASL exchange waits for one.
    Answer(Zeroizing<Vec<u8>>),
    /// `BDAT octets [LAST]`, RFC 3030 §2; the octets follow at once.
    Bdat {
        /// How many.
        octets: u64,
        /// The message ends with them.
        last: bool,
    },
    /// `BDAT` with a number nobody can follow: where the next command begins is lost.
    BdatGarbled,
    /// `DATA`.
    Data,
    /// `EHLO name`.
    Ehlo(String),
    /// `HELO name`.
    Helo(String),
    /// `HELP [about]`.
    Help,
    /// `LHLO name`, RFC 2033.
    Lhlo(String),
    /// `MAIL FROM:<sender> [parameters]`.
    Mail(Mail),
    /// `NOOP [anything]`.
    Noop,
    /// `QUIT`.
    Quit,
    /// `RCPT TO:<recipient>`.
    Rcpt(Address),
    /// `RSET`.
    Rset,
    /// `STARTTLS`.
    StartTls,
    /// A command of some RFC that this server does not do.
    Unimplemented(&'static str),
    /// A parameter of MAIL or RCPT that was never offered (555).
    UnknownParameter(String),
    /// `VRFY anything`.
    Vrfy,
    /// `XCLIENT attribute=value …`.
    Xclient(Xclient),
}

/// `MAIL FROM` and its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// Reverse path; `None` for `<>`.
    pub sender: Option<Address>,
    /// `SIZE=`, RFC 1870; larger than fits is as large as fits.
    pub size: Option<u64>,
    /// `SMTPUTF8`, RFC 6531.
    pub utf8: bool,
}

/// Commands of other RFCs, and of this one, that are known and not done (502).
const UNIMPLEMENTED: &[&str] = &["ATRN", "BURL", "ETRN", "EXPN", "SAML", "SEND", "SOML", "TURN", "XFORWARD"];

/// First words of other languages. Postfix and postscreen close on them too: a browser can be made to send them.
const FOREIGN: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "PROPFIND"];

impl Command {
    /// Reads one line without its end.
    ///
    /// # Errors
    /// Why it is no command.
    pub fn parse(line: &[u8]) -> Result<Self, Malformed> {
        if let Some(what) = foreign(line) {
            return Err(Malformed::Foreign(what));
        }
        let auth = line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"AUTH "));
        if line.len() > if auth { LONGEST_ANSWER } else { LONGEST_COMMAND } {
            return Err(Malformed::TooLong);
        }
        // A control character is never part of a command: what carries one is garbage or an attempt to hide something.
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(Malformed::Unknown);
        }
        let text = std::str::from_utf8(line).map_err(|_| Malformed::Syntax("a command is ASCII or UTF-8".into()))?;
        let text = text.trim_end_matches([' ', '\t']);
        let verb = text.split([' ', '\t']).next().unwrap_or_default();
        let rest = text.get(verb.len()..).unwrap_or_default().trim_start_matches([' ', '\t']);
        // `MAIL:`, `FROM:` glued to the verb and the like are no verbs.
        match verb.to_ascii_uppercase().as_str() {
            "AUTH" => auth_command(rest),
            "BDAT" => Ok(bdat_command(rest)),
            "DATA" => bare(rest, "DATA", Self::Data),
            "EHLO" => Ok(Self::Ehlo(name(rest, "EHLO")?)),
            "HELO" => Ok(Self::Helo(name(rest, "HELO")?)),
            "HELP" => Ok(Self::Help),
            "LHLO" => Ok(Self::Lhlo(name(rest, "LHLO")?)),
            "MAIL" => mail_command(rest),
            "NOOP" => Ok(Self::Noop),
            "QUIT" => Ok(Self::Quit),
            "RCPT" => rcpt_command(rest),
            "RSET" => bare(rest, "RSET", Self::Rset),
            "STARTTLS" => bare(rest, "STARTTLS", Self::StartTls),
            "VRFY" => Ok(Self::Vrfy),
            "XCLIENT" => Ok(Self::Xclient(Xclient::parse(rest)?)),
            verb => UNIMPLEMENTED
                .iter()
                .find(|known| **known == verb)
                .map_or(Err(Malformed::Unknown), |known| Ok(Self::Unimplemented(known))),
        }
    }
}

impl Command {
    /// How many bytes of a line may be written down. Whoever is refused AUTH may still send name and password as if they were commands.
    #[must_use]
    pub(super) fn shown(line: &[u8]) -> usize {
        const KNOWN: [&str; 14] = [
            "BDAT", "DATA", "EHLO", "EXPN", "HELO", "HELP", "LHLO", "MAIL", "NOOP", "QUIT", "RCPT", "RSET", "STARTTLS",
            "VRFY",
        ];
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let first = line.get(..end).unwrap_or_default();
        let is = |known: &&str| first.eq_ignore_ascii_case(known.as_bytes());
        if KNOWN.iter().any(is) {
            return line.len();
        }
        if is(&"AUTH") {
            let rest = line.get(end + 1..).unwrap_or_default();
            return end + 1 + rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        }
        if end == line.len() { 0 } else { end }
    }
}

/// A line that another protocol sends first, in words for the log.
fn foreign(line: &[u8]) -> Option<&'static str> {
    if line.starts_with(&[0x16, 0x03]) {
        return Some("a TLS handshake on a port that speaks plain SMTP first; use STARTTLS or an implicit-TLS port");
    }
    if line == b"\0" {
        // `\r\n\r\n\0\r\nQUIT\n` in lines.
        return Some("a PROXY v2 header from an address that is not in limits.proxy_from");
    }
    if line.starts_with(b"PROXY ") {
        return Some("a PROXY v1 header from an address that is not in limits.proxy_from");
    }
    if line.starts_with(b"SSH-") {
        return Some("an SSH client's greeting on the SMTP port");
    }
    if line.starts_with(&[0x80]) && line.get(2) == Some(&1) {
        return Some("an SSL 2.0 handshake; this server speaks TLS 1.2 and 1.3");
    }
    let verb = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let http = line.len() > verb.len() && FOREIGN.iter().any(|known| known.as_bytes() == verb);
    http.then_some("an HTTP request on the SMTP port")
}

fn bare(rest: &str, verb: &'static str, command: Command) -> Result<Command, Malformed> {
    if rest.is_empty() { Ok(command) } else { Err(Malformed::Syntax(format!("{verb} takes no argument").into())) }
}

/// The name a client gives itself: anything printable; it is only ever shown, and sanitised there.
fn name(rest: &str, verb: &'static str) -> Result<String, Malformed> {
    match rest.split(' ').next() {
        None | Some("") => Err(Malformed::Syntax(format!("{verb} needs the name of your machine").into())),
        Some(name) => Ok(name.chars().take(LONGEST_NAME).collect()),
    }
}

fn auth_command(rest: &str) -> Result<Command, Malformed> {
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let Some(mechanism) = words.next() else {
        return Err(Malformed::Syntax("AUTH needs a mechanism, PLAIN or LOGIN".into()));
    };
    let initial = words.next().map(|word| word.as_bytes().to_vec().into());
    if words.next().is_some() {
        return Err(Malformed::Syntax("AUTH takes a mechanism and at most one initial response".into()));
    }
    Ok(Command::Auth { mechanism: Mechanism::named(mechanism), initial })
}

fn bdat_command(rest: &str) -> Command {
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let octets = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    let (octets, last, more) = (octets.and_then(octet_count), words.next(), words.next());
    match (octets, last, more) {
        (Some(octets), None, None) => Command::Bdat { octets, last: false },
        (Some(octets), Some(word), None) if word.eq_ignore_ascii_case("LAST") => Command::Bdat { octets, last: true },
        _ => Command::BdatGarbled,
    }
}

/// A number, however large: more than anybody takes is more than anybody takes.
fn octet_count(word: &str) -> Option<u64> {
    let digits = !word.is_empty() && word.bytes().all(|digit| digit.is_ascii_digit());
    digits.then(|| word.parse().unwrap_or(u64::MAX))
}

fn mail_command(rest: &str) -> Result<Command, Malformed> {
    let Ok((_, (sender, parameters))) = all_consuming(|input| addressed("FROM", input)).parse(rest) else {
        return Err(Malformed::Syntax("the form is MAIL FROM:<name@domain>".into()));
    };
    let mut mail = Mail { sender, ..Mail::default() };
    for (key, value) in parameters {
        match (key.to_ascii_uppercase().as_str(), value) {
            // RFC 4954 §5: the original submitter is taken note of by nobody here.
            ("AUTH", Some(_)) => {}
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("7BIT") || value.eq_ignore_ascii_case("8BITMIME") => {}
            ("SIZE", Some(value)) => mail.size = Some(size(value)?),
            ("SMTPUTF8", None) => mail.utf8 = true,
            _ => return Ok(Command::UnknownParameter(key.chars().take(64).collect())),
        }
    }
    Ok(Command::Mail(mail))
}

fn rcpt_command(rest: &str) -> Result<Command, Malformed> {
    let Ok((_, (recipient, parameters))) = all_consuming(|input| addressed("TO", input)).parse(rest) else {
        return Err(Malformed::Syntax("the form is RCPT TO:<name@domain>".into()));
    };
    if let Some((key, _)) = parameters.first() {
        return Ok(Command::UnknownParameter(key.chars().take(64).collect()));
    }
    recipient.map(Command::Rcpt).ok_or(Malformed::Syntax("a recipient may not be empty".into()))
}

fn size(value: &str) -> Result<u64, Malformed> {
    if value.is_empty() || value.len() > 20 || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Syntax("SIZE is a number of bytes".into()));
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

type Parameter<'a> = (&'a str, Option<&'a str>);

/// `FROM:<path> KEY=VALUE KEY`, with blanks around the colon where devices put them.
fn addressed<'a>(word: &'static str, input: &'a str) -> IResult<&'a str, (Option<Address>, Vec<Parameter<'a>>)> {
    let parameter =
        (take_till1(|letter: char| letter == '=' || letter.is_whitespace()), opt(preceded(char('='), value)));
    delimited(
        (tag_no_case(word), space0, char(':'), space0),
        (address::path, many0(preceded(space1, parameter))),
        space0,
    )
    .parse(input)
}

fn value(input: &str) -> IResult<&str, &str> {
    alt((take_till1(char::is_whitespace), nom::combinator::success(""))).parse(input)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mail(line: &str) -> Mail {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn verbs_are_read_in_any_case_and_with_stray_blanks() {
        assert_eq!(Command::parse(b"quit"), Ok(Command::Quit));
        assert_eq!(Command::parse(b"NoOp whatever "), Ok(Command::Noop));
        assert_eq!(Command::parse(b"EHLO  NPIF65E56 "), Ok(Command::Ehlo("NPIF65E56".into())));
        assert_eq!(Command::parse(b"data "), Ok(Command::Data));
        assert_eq!(mail("MAIL FROM: <a@b>").sender.unwrap().to_string(), "a@b");
        assert_eq!(mail("mail from:a@b SIZE=3").size, Some(3));
        assert_eq!(mail("MAIL FROM :<a@b>  size=99999999999999999999 ").size, Some(u64::MAX));
        assert_eq!(mail("MAIL FROM:<> BODY=8bitmime SMTPUTF8 AUTH=<>"), Mail { utf8: true, ..Mail::default() });
    }

    #[test]
    fn what_is_wrong_is_said_apart() {
        let unknown = |line: &str| Command::parse(line.as_bytes());
        assert_eq!(unknown("FOO"), Err(Malformed::Unknown));
        assert_eq!(unknown(""), Err(Malformed::Unknown));
        assert_eq!(unknown("NOOP\0"), Err(Malformed::Unknown));
        assert_eq!(unknown("NOOP\rQUIT"), Err(Malformed::Unknown));
        assert_eq!(unknown("EXPN list"), Ok(Command::Unimplemented("EXPN")));
        assert_eq!(unknown("bdat 12"), Ok(Command::Bdat { octets: 12, last: false }));
        assert_eq!(unknown("BDAT 99999999999999999999"), Ok(Command::Bdat { octets: u64::MAX, last: false }));
        assert_eq!(unknown("BDAT 0  last "), Ok(Command::Bdat { octets: 0, last: true }));
        for line in ["BDAT", "BDAT -1", "BDAT x", "BDAT 1 LAST 2", "BDAT 1 FIRST"] {
            assert_eq!(unknown(line), Ok(Command::BdatGarbled), "{line}");
        }
        assert_eq!(unknown("MAIL FROM:<a@b> RET=FULL"), Ok(Command::UnknownParameter("RET".into())));
        assert_eq!(unknown("RCPT TO:<a@b> NOTIFY=NEVER"), Ok(Command::UnknownParameter("NOTIFY".into())));
        assert!(matches!(unknown("MAIL FROM:<a@b> SIZE=ten"), Err(Malformed::Syntax(_))));
        assert!(matches!(unknown("MAIL FROM:<a@b> SIZE="), Err(Malformed::Syntax(_))));
        assert!(matches!(unknown("RCPT TO:<>"), Err(Malformed::Syntax(_))));
        assert!(matches!(unknown("RCPT FROM:<a@b>"), Err(Malformed::Syntax(_))));
        assert!(matches!(unknown("STARTTLS now"), Err(Malformed::Syntax(_))));
        assert!(matches!(unknown("EHLO"), Err(Malformed::Syntax(_))));
        assert_eq!(Command::parse(&[b'A'; 4097]), Err(Malformed::TooLong));
    }

    #[test]
    fn no_password_is_shown() {
        let shown = |line: &str| line[..Command::shown(line.as_bytes()).min(line.len())].to_owned();
        assert_eq!(shown("mail FROM:<a@b> SIZE=3"), "mail FROM:<a@b> SIZE=3");
        assert_eq!(shown("AUTH PLAIN AGJvYgBidWlsZGVy"), "AUTH PLAIN");
        assert_eq!(shown("auth login"), "auth login");
        assert_eq!(shown("AUTH"), "AUTH");
        assert_eq!(shown("AGJvYgBidWlsZGVy"), "");
        assert_eq!(shown("AUTHPLAIN AGJvYgBidWlsZGVy"), "AUTHPLAIN");
        assert_eq!(shown(" AUTH PLAIN AGJvYgBidWlsZGVy"), "");
    }

    #[test]
    fn other_protocols_are_recognised() {
        for line in [
            &b"GET / HTTP/1.1"[..],
            b"POST /x HTTP/1.0",
            b"\x16\x03\x01\x02\x00\x01",
            b"\0",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2",
        ] {
            assert!(matches!(Command::parse(line), Err(Malformed::Foreign(_))), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(line in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn anything_after_a_verb_gets_an_answer(verb in "(MAIL FROM:|RCPT TO:|AUTH |EHLO |MAIL|RCPT TO:<)", rest in "\\PC{0,80}") {
            let _ = Command::parse(format!("{verb}{rest}").as_bytes());
        }
    }
}
