//! FTP commands: one whole line in, one command out. Pure, and never panics whatever comes.
//!
//! Tolerant where devices in the field are sloppy (case, blanks, flags of LIST), strict where a wrong guess would touch
//! another file or another host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nom::bytes::complete::{take_while_m_n, take_while1};
use nom::character::complete::{char, digit1, one_of};
use nom::combinator::{all_consuming, map_opt, opt};
use nom::multi::count;
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use crate::hub::Micros;
use crate::proto::dialogue::Malformed;

/// A command with arguments that make sense; whether it is legal now is the session's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Cut the running transfer.
    Abor,
    /// Account: not needed here.
    Acct,
    /// Announces the size of the next upload.
    Allo(u64),
    /// Append to a file.
    Appe(String),
    /// Begin TLS; false for a mechanism we lack.
    Auth(bool),
    /// To the folder above.
    Cdup,
    /// Names the client's software.
    Clnt,
    /// To a folder.
    Cwd(String),
    /// Remove a file.
    Dele(String),
    /// Passive mode without an address.
    Epsv(Epsv),
    /// What we can do.
    Feat,
    /// What we understand.
    Help,
    /// Names and facts over the data connection.
    List(Style, Option<String>),
    /// When was it changed?
    Mdtm(String),
    /// It was changed then; true when asked by MFMT (whose reply differs).
    Mfmt(Micros, String, bool),
    /// Make a folder.
    Mkd(String),
    /// Facts of one path over the control connection.
    Mlst(Option<String>),
    /// Transfer mode; only `S` exists.
    Mode(u8),
    /// Nothing.
    Noop,
    /// A command FTP has and we do not.
    NotHere,
    /// Which facts MLSD shows.
    OptsMlst(String),
    /// UTF-8, or the account's code page (OFF).
    OptsUtf8(bool),
    /// An option nobody has.
    OptsUnknown,
    /// The password.
    Pass(Secret),
    /// Passive mode.
    Pasv,
    /// Buffer size of protection: always 0 with TLS.
    Pbsz,
    /// Active mode: connect to there. True for EPRT.
    Port(SocketAddr, bool),
    /// EPRT with a network protocol that is neither 1 nor 2.
    PortUnknown,
    /// Protection of the data connection: `C`, `P` and two nobody has.
    Prot(u8),
    /// Where am I?
    Pwd,
    /// The end.
    Quit,
    /// Forget who I am.
    Rein,
    /// The next transfer starts there.
    Rest(u64),
    /// Send a file.
    Retr(String),
    /// Remove an empty folder.
    Rmd(String),
    /// Rename this …
    Rnfr(String),
    /// … to that.
    Rnto(String),
    /// Unix permission bits: accepted and ignored, rights are the server's.
    SiteChmod,
    /// What SITE understands.
    SiteHelp,
    /// A SITE command we lack.
    SiteUnknown,
    /// Bytes of a file.
    Size(String),
    /// State of the session, or a listing over the control connection.
    Stat(Option<String>),
    /// Take a file.
    Stor(String),
    /// Take a file under a name of ours.
    Stou(Option<String>),
    /// File structure; only `F` exists.
    Stru(u8),
    /// What kind of system?
    Syst,
    /// Representation.
    Type(Type),
    /// The name.
    User(String),
}

/// A password, kept out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What EPSV was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epsv {
    /// Nothing but EPSV from now on.
    All,
    /// Whatever the control connection uses.
    Any,
    /// Protocol 1 (IPv4) or 2 (IPv6).
    Family(u8),
}

/// Which listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `ls -l` as Unix prints it.
    Long,
    /// Machine-readable facts (RFC 3659).
    Machine,
    /// Names only.
    Names,
}

/// Representation types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Lines.
    Ascii,
    /// Bytes.
    Image,
    /// EBCDIC, odd byte sizes.
    Other,
}

type Parsed = Result<Command, Malformed>;

/// Reads one line.
///
/// # Errors
/// Why it is no command.
pub fn parse(line: &[u8]) -> Parsed {
    let split = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (verb, rest) = line.split_at(split);
    let rest = rest.get(1..).unwrap_or_default();
    if line.starts_with(b"SSH-") {
        return Err(Malformed::Foreign("SSH"));
    }
    if verb.len() > 7 || !verb.iter().all(u8::is_ascii_alphanumeric) {
        return Err(Malformed::Unknown);
    }
    let verb = verb.to_ascii_uppercase();
    let verb = std::str::from_utf8(&verb).unwrap_or_default();
    access(verb, rest).or_else(|| files(verb, rest)).or_else(|| wire(verb, rest)).unwrap_or_else(|| others(verb))
}

/// Who and how safe.
fn access(verb: &str, rest: &[u8]) -> Option<Parsed> {
    Some(match verb {
        "ACCT" => Ok(Command::Acct),
        "AUTH" => {
            let mechanism = word(rest);
            Ok(Command::Auth(matches!(mechanism.as_str(), "TLS" | "TLS-C" | "TLS-P" | "SSL")))
        }
        "CLNT" => Ok(Command::Clnt),
        "PASS" => Ok(Command::Pass(Secret(rest.to_vec()))),
        "PBSZ" => Ok(Command::Pbsz),
        "PROT" => letter(rest, "PROT takes C or P").map(Command::Prot),
        "QUIT" => Ok(Command::Quit),
        "REIN" => Ok(Command::Rein),
        "USER" => match text(rest) {
            Ok(name) if !name.trim().is_empty() => Ok(Command::User(name.trim().to_owned())),
            _ => Err(syntax("USER needs a name")),
        },
        _ => return None,
    })
}

/// What is in the tree.
fn files(verb: &str, rest: &[u8]) -> Option<Parsed> {
    Some(match verb {
        "APPE" => path(rest).map(Command::Appe),
        "CDUP" | "XCUP" => Ok(Command::Cdup),
        "CWD" | "XCWD" => path(rest).map(Command::Cwd),
        "DELE" => path(rest).map(Command::Dele),
        "LIST" => listing(Style::Long, rest),
        "MDTM" => modified(rest),
        "MFMT" => stamp_and_path(rest, true),
        "MKD" | "XMKD" => path(rest).map(Command::Mkd),
        "MLSD" => maybe_path(rest).map(|path| Command::List(Style::Machine, path)),
        "MLST" => maybe_path(rest).map(Command::Mlst),
        "NLST" => listing(Style::Names, rest),
        "PWD" | "XPWD" => Ok(Command::Pwd),
        "RETR" => path(rest).map(Command::Retr),
        "RMD" | "XRMD" => path(rest).map(Command::Rmd),
        "RNFR" => path(rest).map(Command::Rnfr),
        "RNTO" => path(rest).map(Command::Rnto),
        "SIZE" => path(rest).map(Command::Size),
        "STAT" => maybe_path(without_flags(rest)).map(Command::Stat),
        "STOR" => path(rest).map(Command::Stor),
        "STOU" => maybe_path(rest).map(Command::Stou),
        _ => return None,
    })
}

/// How bytes travel, and small talk.
fn wire(verb: &str, rest: &[u8]) -> Option<Parsed> {
    Some(match verb {
        "ABOR" => Ok(Command::Abor),
        "ALLO" => number(rest, "ALLO needs a number of bytes").map(Command::Allo),
        "EPRT" => extended_port(rest),
        "EPSV" => epsv(rest),
        "FEAT" => Ok(Command::Feat),
        "HELP" => Ok(Command::Help),
        "MODE" => letter(rest, "MODE takes S").map(Command::Mode),
        "NOOP" => Ok(Command::Noop),
        "OPTS" => Ok(options(rest)),
        "PASV" => Ok(Command::Pasv),
        "PORT" => match all_consuming(host_port).parse(trim(rest)) {
            Ok((_, to)) => Ok(Command::Port(to, false)),
            Err(_) => Err(syntax("PORT needs h1,h2,h3,h4,p1,p2")),
        },
        "REST" => number(rest, "REST needs a number of bytes").map(Command::Rest),
        "SITE" => site(rest),
        "STRU" => letter(rest, "STRU takes F").map(Command::Stru),
        "SYST" => Ok(Command::Syst),
        "TYPE" => representation(rest),
        _ => return None,
    })
}

fn others(verb: &str) -> Parsed {
    match verb {
        "LPRT" | "LPSV" => Err(syntax("use EPSV or PASV instead")),
        "ADAT" | "AVBL" | "CCC" | "COMB" | "CONF" | "CPSV" | "CSID" | "DSIZ" | "ENC" | "HASH" | "HOST" | "LANG"
        | "MD5" | "MFCT" | "MFF" | "MIC" | "PRET" | "RANG" | "RMDA" | "SMNT" | "SSCN" | "THMB" | "XCRC" | "XMD5"
        | "XRCP" | "XRSQ" | "XSEM" | "XSEN" | "XSHA" | "XSHA1" | "XSHA256" | "XSHA512" => Ok(Command::NotHere),
        // A browser was talked into posting to us (cross-protocol attack): none of what follows may count as a command.
        "CONNECT" | "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "TRACE" => {
            Err(Malformed::Foreign("HTTP"))
        }
        "PROXY" => Err(Malformed::Foreign("PROXY")),
        _ => Err(Malformed::Unknown),
    }
}

fn syntax(words: &'static str) -> Malformed {
    Malformed::Syntax(words.into())
}

fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

fn word(rest: &[u8]) -> String {
    String::from_utf8_lossy(trim(rest)).to_ascii_uppercase()
}

/// UTF-8, or else Latin-1 as old devices send it: no file is lost over its name.
fn text(bytes: &[u8]) -> Result<String, Malformed> {
    if bytes.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(syntax("a name cannot hold NUL, CR or LF"));
    }
    Ok(std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned))
}

/// A path, exactly as it came: blanks at its ends are part of it.
fn path(rest: &[u8]) -> Result<String, Malformed> {
    match rest {
        [] => Err(syntax("a path is missing")),
        _ => text(rest),
    }
}

fn maybe_path(rest: &[u8]) -> Result<Option<String>, Malformed> {
    if trim(rest).is_empty() { Ok(None) } else { text(rest).map(Some) }
}

/// `-la` and the like belong to `ls`; they are never a path.
fn without_flags(mut rest: &[u8]) -> &[u8] {
    while rest.first() == Some(&b'-') {
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        rest = rest.get(end..).unwrap_or_default().trim_ascii_start();
    }
    rest
}

fn listing(style: Style, rest: &[u8]) -> Parsed {
    maybe_path(without_flags(rest)).map(|path| Command::List(style, path))
}

fn letter(rest: &[u8], words: &'static str) -> Result<u8, Malformed> {
    match trim(rest) {
        [one] => Ok(one.to_ascii_uppercase()),
        _ => Err(syntax(words)),
    }
}

fn number(rest: &[u8], words: &'static str) -> Result<u64, Malformed> {
    let mut parser = terminated(decimal, opt((char(' '), take_while1(|_| true))));
    match all_consuming(|input| parser.parse(input)).parse(trim(rest)) {
        Ok((_, number)) => Ok(number),
        Err(_) => Err(syntax(words)),
    }
}

fn decimal<T: std::str::FromStr>(input: &[u8]) -> IResult<&[u8], T> {
    map_opt(digit1, |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok()).parse(input)
}

/// `h1,h2,h3,h4,p1,p2`, each a byte in decimal.
fn host_port(input: &[u8]) -> IResult<&[u8], SocketAddr> {
    map_opt((decimal::<u8>, count(preceded(char(','), decimal::<u8>), 5)), |(first, rest)| {
        let [b, c, d, high, low] = rest.try_into().ok()?;
        let address = Ipv4Addr::new(first, b, c, d);
        Some(SocketAddr::new(address.into(), u16::from_be_bytes([high, low])))
    })
    .parse(input)
}

/// RFC 2428: `|2|2001:db8::1|5282|`, with any delimiter.
fn extended_port(rest: &[u8]) -> Parsed {
    let wrong = || syntax("EPRT needs |1|address|port|");
    let rest = trim(rest);
    let Some((&mark @ 33..=126, fields)) = rest.split_first() else { return Err(wrong()) };
    let mut fields = fields.split(|byte| *byte == mark);
    let mut next = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
    let (Some(family), Some(address), Some(port), Some(""), None) = (next(), next(), next(), next(), next()) else {
        return Err(wrong());
    };
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let address: IpAddr = match family {
        "1" => address.parse::<Ipv4Addr>().map_err(|_| wrong())?.into(),
        "2" => address.parse::<Ipv6Addr>().map_err(|_| wrong())?.into(),
        _ => return Ok(Command::PortUnknown),
    };
    Ok(Command::Port(SocketAddr::new(address, port), true))
}

fn epsv(rest: &[u8]) -> Parsed {
    match word(rest).as_str() {
        "" => Ok(Command::Epsv(Epsv::Any)),
        "ALL" => Ok(Command::Epsv(Epsv::All)),
        family => match family.parse() {
            Ok(family) => Ok(Command::Epsv(Epsv::Family(family))),
            Err(_) => Err(syntax("EPSV takes nothing, 1, 2 or ALL")),
        },
    }
}

/// `I`, `A`, `A N`, `L 8`, in any case, with any blanks: scanners send all of them.
fn representation(rest: &[u8]) -> Parsed {
    let compact: String = word(rest).split_ascii_whitespace().collect();
    Ok(Command::Type(match compact.as_str() {
        "A" | "AN" => Type::Ascii,
        "I" | "L8" => Type::Image,
        "" => return Err(syntax("TYPE takes A, I or L 8")),
        _ => Type::Other,
    }))
}

fn options(rest: &[u8]) -> Command {
    let whole = word(rest);
    let (name, value) = whole.split_once(' ').unwrap_or((&whole, ""));
    match name {
        "MLST" => Command::OptsMlst(value.trim().to_owned()),
        "UTF8" | "UTF-8" => Command::OptsUtf8(value.trim() != "OFF"),
        _ => Command::OptsUnknown,
    }
}

fn site(rest: &[u8]) -> Parsed {
    let rest = trim(rest);
    let split = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let (verb, rest) = rest.split_at(split);
    let rest = rest.get(1..).unwrap_or_default();
    match word(verb).as_str() {
        "CHMOD" => Ok(Command::SiteChmod),
        "HELP" => Ok(Command::SiteHelp),
        "UTIME" => utime(rest),
        _ => Ok(Command::SiteUnknown),
    }
}

/// `SITE UTIME yyyymmddhhmm[ss] path`, or `SITE UTIME path atime mtime ctime UTC`.
fn utime(rest: &[u8]) -> Parsed {
    let whole = text(rest)?;
    if let Some(head) = whole.strip_suffix(" UTC") {
        let mut parts = head.rsplitn(4, ' ');
        let (_created, modified, _accessed, name) = (parts.next(), parts.next(), parts.next(), parts.next());
        if let (Some(modified), Some(name)) = (modified, name)
            && let Ok((_, modified)) = all_consuming(stamp).parse(modified.as_bytes())
        {
            return Ok(Command::Mfmt(modified, name.to_owned(), false));
        }
    }
    stamp_and_path(rest, false)
}

fn stamp_and_path(rest: &[u8], told: bool) -> Parsed {
    match terminated(stamp, char(' ')).parse(rest) {
        Ok((name, modified)) => path(name).map(|path| Command::Mfmt(modified, path, told)),
        Err(_) => Err(syntax("a time as yyyymmddhhmmss and a path are needed")),
    }
}

/// `MDTM path` asks; `MDTM yyyymmddhhmmss path`, which some clients send, sets.
fn modified(rest: &[u8]) -> Parsed {
    match stamp_and_path(rest, false) {
        Ok(set) => Ok(set),
        Err(_) => path(rest).map(Command::Mdtm),
    }
}

/// `yyyymmddhhmm[ss[.f]]` in UTC.
fn stamp(input: &[u8]) -> IResult<&[u8], Micros> {
    let seconds = opt((digits(2), opt(preceded(one_of("."), take_while_m_n(1, 9, |byte: u8| byte.is_ascii_digit())))));
    let parts = (digits(4), digits(2), digits(2), digits(2), digits(2), seconds);
    map_opt(parts, |(year, month, day, hour, minute, seconds)| {
        let (second, fraction) = seconds.map_or((0, None), |(second, fraction)| (second, fraction));
        let small = |number: i16| i8::try_from(number).ok();
        // A leap second is the last second of its minute here.
        let second = small(second.min(59))?;
        let at = DateTime::new(year, small(month)?, small(day)?, small(hour)?, small(minute)?, second, 0).ok()?;
        let whole = at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond();
        Some(whole + fraction.map_or(0, micros))
    })
    .parse(input)
}

fn digits<'a>(how_many: usize) -> impl Parser<&'a [u8], Output = i16, Error = nom::error::Error<&'a [u8]>> {
    map_opt(take_while_m_n(how_many, how_many, |byte: u8| byte.is_ascii_digit()), |digits: &[u8]| {
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

fn micros(fraction: &[u8]) -> Micros {
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(6);
    digits.fold(0, |sum, digit| sum * 10 + Micros::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ok(line: &str) -> Command {
        parse(line.as_bytes()).unwrap_or_else(|malformed| panic!("{line}: {malformed:?}"))
    }

    #[test]
    fn commands_are_read_as_devices_write_them() {
        assert_eq!(ok("noop"), Command::Noop);
        assert_eq!(ok("NOOP "), Command::Noop);
        assert_eq!(ok("type a n"), Command::Type(Type::Ascii));
        assert_eq!(ok("TYPE L 8"), Command::Type(Type::Image));
        assert_eq!(ok("TYPE E"), Command::Type(Type::Other));
        assert_eq!(ok("STOR  leading and trailing "), Command::Stor(" leading and trailing ".into()));
        assert_eq!(ok("LIST -la"), Command::List(Style::Long, None));
        assert_eq!(ok("LIST -a -l a dir"), Command::List(Style::Long, Some("a dir".into())));
        assert_eq!(ok("ALLO 10 R 5"), Command::Allo(10));
        assert_eq!(ok("XPWD"), Command::Pwd);
        assert_eq!(parse(b"RETR f\xfcr.pdf"), Ok(Command::Retr("für.pdf".into())));
        assert_eq!(ok("USER  alice "), Command::User("alice".into()));
    }

    #[test]
    fn addresses_are_read_exactly() {
        let to: SocketAddr = "10.0.0.7:258".parse().unwrap();
        assert_eq!(ok("PORT 10,0,0,7,1,2"), Command::Port(to, false));
        assert_eq!(ok("EPRT |1|10.0.0.7|258|"), Command::Port(to, true));
        assert_eq!(ok("EPRT !2!::1!258!"), Command::Port("[::1]:258".parse().unwrap(), true));
        assert_eq!(ok("EPRT |3|x|258|"), Command::PortUnknown);
        for wrong in ["PORT 1,2,3,4,5", "PORT 1,2,3,4,5,6,7", "PORT 256,2,3,4,5,6", "EPRT", "EPRT |1|::1|5|"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_utc_and_real() {
        let newyear = 1_577_836_800_000_000;
        assert_eq!(ok("MFMT 20200101000000 a b"), Command::Mfmt(newyear, "a b".into(), true));
        assert_eq!(ok("MFMT 20200101000000.25 a"), Command::Mfmt(newyear + 250_000, "a".into(), true));
        assert_eq!(ok("MDTM 20200101000000 a"), Command::Mfmt(newyear, "a".into(), false));
        assert_eq!(ok("SITE UTIME 202001010000 a"), Command::Mfmt(newyear, "a".into(), false));
        let long = "SITE UTIME a b 20190101000000 20200101000000 20190101000000 UTC";
        assert_eq!(ok(long), Command::Mfmt(newyear, "a b".into(), false));
        assert_eq!(ok("MDTM 20201301000000 a"), Command::Mdtm("20201301000000 a".into()));
        assert!(parse(b"MFMT 20200230000000 a").is_err());
    }

    #[test]
    fn other_protocols_are_recognised() {
        assert_eq!(parse(b"GET / HTTP/1.1"), Err(Malformed::Foreign("HTTP")));
        assert_eq!(parse(b"SSH-2.0-x"), Err(Malformed::Foreign("SSH")));
        assert_eq!(parse(b"XYZZY"), Err(Malformed::Unknown));
        assert_eq!(parse(b""), Err(Malformed::Unknown));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&line);
        }

        #[test]
        fn no_argument_panics(verb in "[A-Z]{3,4}", rest in "[ -~é]{0,40}") {
            let _ = parse(format!("{verb} {rest}").as_bytes());
        }

        #[test]
        fn no_argument_of_a_known_verb_panics(
            verb in proptest::sample::select(vec!["PORT", "EPRT", "EPSV", "MFMT", "MDTM", "SITE UTIME", "TYPE", "ALLO", "OPTS"]),
            rest in "[0-9,|.: UTCa-z]{0,40}",
        ) {
            let _ = parse(format!("{verb} {rest}").as_bytes());
        }
    }
}
