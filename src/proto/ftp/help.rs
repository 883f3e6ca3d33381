//! What the server says of itself: FEAT, HELP, LANG.

use super::reply::Reply;
use super::session::{Session, Turn, say};

/// Commands that do something, as HELP shows them.
const COMMANDS: [&str; 5] = [
    "ABOR ACCT ALLO APPE AUTH AVBL CDUP CLNT CWD DELE EPRT EPSV FEAT HASH",
    "HELP HOST LANG LIST MD5 MDTM MFMT MKD MLSD MLST MODE NLST NOOP OPTS",
    "PASS PASV PBSZ PORT PROT PWD QUIT REIN REST RETR RMD RNFR RNTO SITE",
    "SIZE STAT STOR STOU STRU SYST TYPE USER XCRC XCUP XCWD XMD5 XMKD XPWD",
    "XRMD XSHA XSHA1 XSHA256 XSHA512",
];
/// Commands behind SITE.
const SITE: &str = "CHMOD COPY CPFR CPTO HELP QUOTA UTIME";

impl Session {
    /// RFC 2389 §3.2: one feature a line, told alike before and after the sign-in.
    pub(super) fn features(&self) -> Turn {
        let mut lines: Vec<String> = Vec::new();
        let mut have = |features: &[&str]| lines.extend(features.iter().map(ToString::to_string));
        if self.tls.is_some() {
            have(&["AUTH TLS", "PBSZ", "PROT"]);
        }
        if self.policy.active {
            have(&["EPRT"]);
        }
        have(&["AVBL", "CLNT", "EPSV"]);
        if self.door.settings.checksums > 0 {
            have(&[&format!("HASH {}", self.hash.feature()), "MD5"]);
            have(&["XCRC", "XMD5", "XSHA", "XSHA1", "XSHA256", "XSHA512"]);
        }
        have(&["HOST", "LANG EN*", "MDTM", "MFMT", &format!("MLST {}", self.facts.feature()), "PASV", "REST STREAM"]);
        have(&["SITE COPY", "SITE QUOTA", "SITE UTIME", "SIZE", "TVFS", "UTF8"]);
        Turn::Say(Reply::many(211, "Features:", lines, "End"))
    }
}

/// HELP: all commands; or whether there is the one asked for, and for SITE which commands are behind it.
pub(super) fn help(about: Option<&str>) -> Turn {
    let Some(about) = about else {
        let lines = COMMANDS.map(str::to_owned).to_vec();
        return Turn::Say(Reply::many(214, "Commands:", lines, "End"));
    };
    let verb = about.to_ascii_uppercase();
    let known = |list: &str| list.split(' ').any(|one| one == verb);
    if verb == "SITE" {
        return Turn::Say(Reply::many(214, "SITE:", vec![SITE.to_owned()], "End"));
    }
    match verb.strip_prefix("SITE ").map(str::trim) {
        Some(behind) if SITE.split(' ').any(|one| one == behind) => say(214, format!("SITE {behind} is understood")),
        None if COMMANDS.iter().any(|line| known(line)) => say(214, format!("{verb} is understood")),
        _ => say(502, "no such command; HELP names those there are"),
    }
}

/// RFC 2640 §4: one language.
pub(super) fn speak(asked: Option<&str>) -> Turn {
    let asked = asked.unwrap_or("en").trim().to_ascii_lowercase();
    if asked == "en" || asked.starts_with("en-") {
        say(200, "English it is")
    } else {
        say(504, "only English: LANG EN")
    }
}
