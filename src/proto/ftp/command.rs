//! FTP commands: one whole line in, one command out. Pure, and never panics whatever comes.
//!
//! Tolerant where devices in the field are sloppy (case, blanks, flags of LIST), strict where a wrong guess would touch
//! another file or another host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nom::Parser;
use nom::character::complete::char;
use nom::combinator::all_consuming;
use nom::sequence::terminated;
use zeroize::Zeroizing;

use super::argument::{
    allocation, bare_word, decimal, host_port, letter, maybe_path, number, path, path_and_range, quoted_word, stamp,
    syntax, text, trim, word,
};
use super::checksum::Algorithm;
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
    /// Begin TLS.
    Auth(Mechanism),
    /// How many bytes would still fit.
    Avbl(Option<String>),
    /// To the folder above.
    Cdup,
    /// A checksum of a file, or a part of it: a path, and what may be a range behind it.
    Checksum(Ask, String),
    /// Names the client's software.
    Clnt(String),
    /// To a folder.
    Cwd(String),
    /// Remove a file.
    Dele(String),
    /// Passive mode without an address.
    Epsv(Epsv),
    /// What we can do.
    Feat,
    /// What we understand; or whether we understand this.
    Help(Option<String>),
    /// The host the client believes it talks to (RFC 7151).
    Host(String),
    /// The language of replies; `None`: the one there is.
    Lang(Option<String>),
    /// Names and facts over the data connection. What the argument means, flags or a path, is told by what is there.
    List(Style, Option<String>),
    /// When was it changed? Or, where no file has this whole name: it was changed then.
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
    /// Which checksum HASH computes; `None`: tell.
    OptsHash(Option<Algorithm>),
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
    /// A command FTP has and we do not, with the code it is refused by.
    Refused(u16),
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
    /// Unix permission bits of a path: accepted and ignored, rights are the server's.
    SiteChmod(String),
    /// Copy this to that.
    SiteCopy(String, String),
    /// Copy this …
    SiteCpfr(String),
    /// … to that.
    SiteCpto(String),
    /// What SITE understands.
    SiteHelp,
    /// What the space here holds and may hold.
    SiteQuota,
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
pub struct Secret(pub Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What AUTH asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// TLS; data connections stay in the clear until PROT P (RFC 4217).
    Tls,
    /// `SSL` and `TLS-P`: TLS with PROT P, as in the drafts before RFC 4217.
    TlsWithData,
    /// One we lack.
    Unknown,
}

/// Which checksum, and how its reply looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// HASH: the algorithm chosen by OPTS, told with the range.
    Chosen,
    /// MD5 (draft-twine-ftpmd5): told with the path.
    Md5,
    /// XCRC, XMD5, XSHA…: the digits alone.
    Plain(Algorithm),
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

impl Command {
    /// It ends the preparation of a transfer: what REST and ALLO said is forgotten.
    pub(super) fn ends_preparation(&self) -> bool {
        matches!(
            self,
            Self::Abor
                | Self::Cdup
                | Self::Cwd(_)
                | Self::Dele(_)
                | Self::Mfmt(..)
                | Self::Mkd(_)
                | Self::Rmd(_)
                | Self::Rnfr(_)
                | Self::Rnto(_)
                | Self::SiteChmod(_)
                | Self::SiteCopy(..)
                | Self::SiteCpfr(_)
                | Self::SiteCpto(_)
        )
    }
}

/// The command of a line: without what Telnet left before it (a mark whose IAC went another way) and further CRs behind it.
pub fn bare(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|byte| *byte < FIRST_TELNET).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| *byte != b'\r').map_or(start, |at| (at + 1).max(start));
    line.get(start..end).unwrap_or_default()
}

/// Telnet's commands are the bytes from here on (RFC 854); no verb begins with one.
const FIRST_TELNET: u8 = 240;

/// Reads one line.
///
/// # Errors
/// Why it is no command.
pub fn parse(line: &[u8]) -> Parsed {
    let split = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (verb, rest) = line.split_at(split);
    let rest = rest.get(1..).unwrap_or_default();
    if line.iter().all(u8::is_ascii_whitespace) {
        return Err(Malformed::Blank);
    }
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
            match mechanism.as_str() {
                "" => Err(syntax("AUTH needs a mechanism: AUTH TLS")),
                "TLS" | "TLS-C" => Ok(Command::Auth(Mechanism::Tls)),
                "SSL" | "TLS-P" => Ok(Command::Auth(Mechanism::TlsWithData)),
                _ => Ok(Command::Auth(Mechanism::Unknown)),
            }
        }
        "CLNT" => text(trim(rest)).map(Command::Clnt),
        "HOST" => host(rest),
        "PASS" => Ok(Command::Pass(Secret(rest.to_vec().into()))),
        "PBSZ" => number(rest, "PBSZ needs a number: PBSZ 0").map(|_| Command::Pbsz),
        "PROT" => letter(rest, "PROT takes C or P").map(Command::Prot),
        "QUIT" => Ok(Command::Quit),
        "REIN" => bare_word(rest, Command::Rein),
        "USER" => match text(rest) {
            Ok(name) if !name.trim().is_empty() => Ok(Command::User(name.trim().to_owned())),
            _ => Err(syntax("USER needs a name")),
        },
        _ => return None,
    })
}

/// What is in the tree.
fn files(verb: &str, rest: &[u8]) -> Option<Parsed> {
    if let Some(ask) = checksum(verb) {
        return Some(
            text(rest).and_then(|whole| path_and_range(&whole).map(|_| ()).map(|()| Command::Checksum(ask, whole))),
        );
    }
    Some(match verb {
        "APPE" => path(rest).map(Command::Appe),
        "AVBL" => maybe_path(rest).map(Command::Avbl),
        "CDUP" | "XCUP" => bare_word(rest, Command::Cdup),
        "CWD" | "XCWD" => path(rest).map(Command::Cwd),
        "DELE" => path(rest).map(Command::Dele),
        "LIST" => listing(Style::Long, rest),
        "MDTM" => path(rest).map(Command::Mdtm),
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
        "STAT" => maybe_path(rest).map(Command::Stat),
        "STOR" => path(rest).map(Command::Stor),
        "STOU" => maybe_path(rest).map(Command::Stou),
        _ => return None,
    })
}

/// How bytes travel, and small talk.
fn wire(verb: &str, rest: &[u8]) -> Option<Parsed> {
    Some(match verb {
        "ABOR" => bare_word(rest, Command::Abor),
        "ALLO" => allocation(rest, "ALLO needs a number of bytes").map(Command::Allo),
        "EPRT" => extended_port(rest),
        "EPSV" => epsv(rest),
        "FEAT" => Ok(Command::Feat),
        "HELP" => maybe_path(trim(rest)).map(Command::Help),
        "LANG" => maybe_path(rest).map(Command::Lang),
        "MODE" => letter(rest, "MODE takes S").map(Command::Mode),
        "NOOP" => Ok(Command::Noop),
        "OPTS" => options(rest),
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
        // RFC 4217 §12.3: the control connection stays protected.
        "CCC" => Ok(Command::Refused(533)),
        "ADAT" | "COMB" | "CONF" | "CPSV" | "CSID" | "DSIZ" | "ENC" | "ESTA" | "ESTP" | "MAIL" | "MFCT" | "MFF"
        | "MIC" | "MLFL" | "MRCP" | "MRSQ" | "MSAM" | "MSND" | "MSOM" | "PRET" | "RANG" | "RMDA" | "SMNT" | "SPSV"
        | "SSCN" | "THMB" | "XRCP" | "XRSQ" | "XSEM" | "XSEN" => Ok(Command::Refused(502)),
        // A browser was talked into posting to us (cross-protocol attack): none of what follows may count as a command.
        "CONNECT" | "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "TRACE" => {
            Err(Malformed::Foreign("HTTP"))
        }
        "PROXY" => Err(Malformed::Foreign("PROXY")),
        _ => Err(Malformed::Unknown),
    }
}

fn checksum(verb: &str) -> Option<Ask> {
    Some(match verb {
        "HASH" => Ask::Chosen,
        "MD5" => Ask::Md5,
        "XCRC" => Ask::Plain(Algorithm::Crc32),
        "XMD5" => Ask::Plain(Algorithm::Md5),
        "XSHA" | "XSHA1" => Ask::Plain(Algorithm::Sha1),
        "XSHA256" => Ask::Plain(Algorithm::Sha256),
        "XSHA512" => Ask::Plain(Algorithm::Sha512),
        _ => return None,
    })
}

/// RFC 7151 §3.1: a name, an IPv4 address or an IPv6 address in brackets; never a port.
fn host(rest: &[u8]) -> Parsed {
    let name = text(trim(rest))?;
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let letter =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_') || !letter.is_ascii();
    let plain = (1..=255).contains(&name.len()) && name.chars().all(letter);
    match literal.map_or(plain, |address| address.parse::<Ipv6Addr>().is_ok()) {
        true => Ok(Command::Host(name.to_lowercase())),
        false => Err(syntax("HOST takes a name, or an address (an IPv6 one in brackets), without a port")),
    }
}

fn listing(style: Style, rest: &[u8]) -> Parsed {
    maybe_path(rest).map(|path| Command::List(style, path))
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
    let (_, port) = all_consuming(decimal::<u16>).parse(port.as_bytes()).map_err(|_| wrong())?;
    let address: IpAddr = match family {
        "1" => address.parse::<Ipv4Addr>().map_err(|_| wrong())?.into(),
        "2" => address.parse::<Ipv6Addr>().map_err(|_| wrong())?.into(),
        _ => return Ok(Command::PortUnknown),
    };
    Ok(Command::Port(SocketAddr::new(address, port), true))
}

fn epsv(rest: &[u8]) -> Parsed {
    // What follows the first word is nothing: other servers do not look at it either.
    match word(rest).split(' ').next().unwrap_or_default() {
        "" => Ok(Command::Epsv(Epsv::Any)),
        "ALL" => Ok(Command::Epsv(Epsv::All)),
        family => match all_consuming(decimal).parse(family.as_bytes()) {
            Ok((_, family)) => Ok(Command::Epsv(Epsv::Family(family))),
            Err(_) => Err(syntax("EPSV takes nothing, 1, 2 or ALL")),
        },
    }
}

/// `I`, `A`, `A N`, `L 8`, in any case, with any blanks: scanners send all of them.
fn representation(rest: &[u8]) -> Parsed {
    let compact: String = word(rest).split_ascii_whitespace().collect();
    Ok(Command::Type(match compact.as_str() {
        // RFC 1123 §4.1.2.2: whoever knows no carriage control takes T for N.
        "A" | "AN" | "AT" => Type::Ascii,
        "I" | "L8" => Type::Image,
        "" => return Err(syntax("TYPE takes A, I or L 8")),
        _ => Type::Other,
    }))
}

fn options(rest: &[u8]) -> Parsed {
    let whole = word(rest);
    let (name, value) = whole.split_once(' ').unwrap_or((&whole, ""));
    Ok(match (name, value.trim()) {
        ("HASH", "") => Command::OptsHash(None),
        ("HASH", algorithm) => match Algorithm::named(algorithm) {
            Some(algorithm) => Command::OptsHash(Some(algorithm)),
            None => return Err(syntax("no such checksum; FEAT tells which there are")),
        },
        ("MLST", facts) => Command::OptsMlst(facts.to_owned()),
        ("UTF8" | "UTF-8", "" | "ON" | "NLST") => Command::OptsUtf8(true),
        ("UTF8" | "UTF-8", "OFF") => Command::OptsUtf8(false),
        ("UTF8" | "UTF-8", _) => return Err(syntax("OPTS UTF8 takes ON or OFF")),
        _ => Command::OptsUnknown,
    })
}

fn site(rest: &[u8]) -> Parsed {
    let rest = trim(rest);
    let split = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let (verb, rest) = rest.split_at(split);
    let rest = rest.get(1..).unwrap_or_default();
    match word(verb).as_str() {
        "CHMOD" => chmod(rest),
        "COPY" => {
            let words = text(rest)?;
            let pair = quoted_word(&words).and_then(|(from, rest)| Some((from, quoted_word(rest)?)));
            match pair {
                Some((from, (to, ""))) => Ok(Command::SiteCopy(from, to)),
                _ => Err(syntax("SITE COPY needs two paths, in quotes when there are blanks in them")),
            }
        }
        "CPFR" => path(rest).map(Command::SiteCpfr),
        "CPTO" => path(rest).map(Command::SiteCpto),
        "HELP" => Ok(Command::SiteHelp),
        "QUOTA" => Ok(Command::SiteQuota),
        "UTIME" => utime(rest),
        _ => Ok(Command::SiteUnknown),
    }
}

fn chmod(rest: &[u8]) -> Parsed {
    let split = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let (bits, rest) = rest.split_at(split);
    match (bits, rest.get(1..).unwrap_or_default()) {
        ([], _) | (_, []) => Err(syntax("SITE CHMOD needs bits in octal and a path")),
        (bits, name) if bits.len() <= 4 && bits.iter().all(|bit| matches!(bit, b'0'..=b'7')) => {
            path(name).map(Command::SiteChmod)
        }
        _ => Err(syntax("SITE CHMOD needs bits in octal and a path")),
    }
}

/// `SITE UTIME yyyymmddhhmm[ss] path`, or `SITE UTIME path atime mtime ctime UTC`.
fn utime(rest: &[u8]) -> Parsed {
    let whole = text(rest)?;
    if let Some(head) = whole.strip_suffix(" UTC") {
        let mut parts = head.rsplitn(4, ' ');
        let mut time = || all_consuming(stamp).parse(parts.next()?.as_bytes()).ok().map(|(_, time)| time);
        if let (Some(_created), Some(modified), Some(_accessed)) = (time(), time(), time())
            && let Some(name) = parts.next().filter(|name| !name.is_empty())
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
        assert_eq!(ok("LIST -la"), Command::List(Style::Long, Some("-la".into())));
        assert_eq!(ok("LIST -a -l a dir"), Command::List(Style::Long, Some("-a -l a dir".into())));
        assert_eq!(ok("ALLO 10 R 5"), Command::Allo(10));
        assert_eq!(ok("TYPE A T"), Command::Type(Type::Ascii));
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
        assert_eq!(ok("PORT 10,0,0,7,1,2,"), Command::Port(to, false));
        for wrong in [
            "EPRT |1|10.0.0.7|+258|",
            "EPSV +1",
            "PORT +10,0,0,7,1,2",
            "PORT 1,2,3,4,5",
            "PORT 1,2,3,4,5,6,7",
            "PORT 256,2,3,4,5,6",
            "EPRT",
            "EPRT |1|::1|5|",
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_utc_and_real() {
        let newyear = 1_577_836_800_000_000;
        assert_eq!(ok("MFMT 20200101000000 a b"), Command::Mfmt(newyear, "a b".into(), true));
        assert_eq!(ok("MFMT 20200101000000.25 a"), Command::Mfmt(newyear + 250_000, "a".into(), true));
        assert_eq!(ok("MDTM 20200101000000 a"), Command::Mdtm("20200101000000 a".into()));
        assert_eq!(ok("SITE UTIME 202001010000 a"), Command::Mfmt(newyear, "a".into(), false));
        let long = "SITE UTIME a b 20190101000000 20200101000000 20190101000000 UTC";
        assert_eq!(ok(long), Command::Mfmt(newyear, "a b".into(), false));
        assert_eq!(ok("MDTM 20201301000000 a"), Command::Mdtm("20201301000000 a".into()));
        for wrong in [
            "20200230000000",
            "00010101000000",
            "19010101000000",
            "24460101000000",
            "20200101250000",
            "2020010100000000",
        ] {
            assert!(parse(format!("MFMT {wrong} a").as_bytes()).is_err(), "{wrong}");
        }
        assert!(parse(b"SITE UTIME a x 20200101000000 20190101000000 UTC").is_err());
    }

    #[test]
    fn other_protocols_are_recognised() {
        assert_eq!(parse(b"GET / HTTP/1.1"), Err(Malformed::Foreign("HTTP")));
        assert_eq!(parse(b"SSH-2.0-x"), Err(Malformed::Foreign("SSH")));
        assert_eq!(parse(b"XYZZY"), Err(Malformed::Unknown));
        assert_eq!(parse(b""), Err(Malformed::Blank));
        assert_eq!(parse(b" \t "), Err(Malformed::Blank));
    }

    #[test]
    fn no_argument_is_half_read() {
        for wrong in [
            "REST 1 2",
            "REST",
            "REST -1",
            "REST +1",
            "REST 1x",
            "REST 0x1",
            "REST 18446744073709551616",
            "ALLO",
            "ALLO x",
            "ALLO 10 R",
            "ALLO 10 5",
            "ALLO 10 R x",
            "ALLO +1",
            "PBSZ",
            "PBSZ x",
            "PROT",
            "PROT PP",
            "MODE",
            "MODE S S",
            "STRU",
            "STRU F F",
            "TYPE",
            "OPTS UTF8 XYZ",
            "OPTS HASH X",
            "AUTH",
            "CDUP x",
            "REIN x",
            "ABOR x",
            "USER",
            "USER  ",
            "HOST",
            "HOST a b",
            "EPRT",
            "EPSV x",
            "SITE CHMOD 644",
            "SITE COPY a",
            "SITE UTIME a",
            "MKD",
            "RNFR",
            "CWD",
        ] {
            assert!(
                matches!(parse(wrong.as_bytes()), Err(Malformed::Syntax(_))),
                "{wrong}: {:?}",
                parse(wrong.as_bytes())
            );
        }
        assert_eq!(ok("REST  7 "), Command::Rest(7));
        assert_eq!(ok("ALLO 7 r 1"), Command::Allo(7));
        assert_eq!(ok("EPSV 1 2"), Command::Epsv(Epsv::Family(1)));
        assert_eq!((ok("NOOP x"), ok("PASV x"), ok("PWD x")), (Command::Noop, Command::Pasv, Command::Pwd));
    }

    #[test]
    fn telnet_marks_before_a_verb_and_carriage_returns_behind_a_line_are_no_part_of_it() {
        for (line, wanted) in [
            (&b"\xf2ABOR"[..], &b"ABOR"[..]),
            (b"\xf4\xf2ABOR\r\r", b"ABOR"),
            (b"\xff\xf2NOOP", b"NOOP"),
            (b"MKD \xff\r", b"MKD \xff"),
            (b"\r", b""),
            (b"\xf2", b""),
            (b"", b""),
        ] {
            assert_eq!(bare(line), wanted, "{line:?}");
        }
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
