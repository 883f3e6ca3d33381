//! DMARC as RFC 9989 has it (tree walk, `psd`, `np`, `t`, several records): what a receiver that only evaluates finds, and what it refuses.

use crate::proof::{Names, section, send};
use crate::world::World;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    /// Taken, with this word for DMARC.
    Taken(&'static str),
}
use Fate::{Refused, Taken};

/// Records beside those of all cases: `DOMAIN TEXT`, a line each; two of one domain are two records.
struct Case {
    story: &'static str,
    records: &'static str,
    /// The author, and the envelope's sender.
    from: &'static str,
    sender: &'static str,
    fate: Fate,
}

const fn case(
    story: &'static str,
    records: &'static str,
    from: &'static str,
    sender: &'static str,
    fate: Fate,
) -> Case {
    Case { story, records, from, sender, fate }
}

const DEEP: &str = "x@a.b.c.d.e.f.g.h.deep.example";
const STRANGER: &str = "x@stranger.example";

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("the author's own record", "_dmarc.own.example v=DMARC1; p=reject", "x@own.example", STRANGER, Refused),
    case("nobody says anything", "", "x@silent.example", STRANGER, Taken("none")),
    case("the record of the domain above", "_dmarc.org.example v=DMARC1; p=reject", "x@sub.org.example", STRANGER, Refused),
    case("sp of the domain above", "_dmarc.org.example v=DMARC1; p=reject; sp=none\nsub.org.example there", "x@sub.org.example", STRANGER, Taken("fail")),
    case("the own record counts before that above", "_dmarc.sub.org.example v=DMARC1; p=none\n_dmarc.org.example v=DMARC1; p=reject", "x@sub.org.example", STRANGER, Taken("fail")),
    case("np of a name that is not there", "_dmarc.org.example v=DMARC1; p=none; np=reject", "x@ghost.org.example", STRANGER, Refused),
    case("np does not count for a name that is there", "_dmarc.org.example v=DMARC1; p=none; np=reject\nsub.org.example there", "x@sub.org.example", STRANGER, Taken("fail")),
    case("np weaker than sp", "_dmarc.org.example v=DMARC1; p=reject; np=none", "x@ghost.org.example", STRANGER, Taken("fail")),
    case("a test refuses nobody", "_dmarc.own.example v=DMARC1; p=reject; t=y", "x@own.example", STRANGER, Taken("fail")),
    case("t=n is no test", "_dmarc.own.example v=DMARC1; p=reject; t=n", "x@own.example", STRANGER, Refused),
    case("pct is no longer looked at", "_dmarc.own.example v=DMARC1; p=reject; pct=0", "x@own.example", STRANGER, Refused),
    case("quarantine is no refusal", "_dmarc.own.example v=DMARC1; p=quarantine", "x@own.example", STRANGER, Taken("fail")),
    case("two records are none", "_dmarc.own.example v=DMARC1; p=reject\n_dmarc.own.example v=DMARC1; p=reject; t=n", "x@own.example", STRANGER, Taken("none")),
    case("two records are none, and the walk goes on", "_dmarc.sub.org.example v=DMARC1; p=none\n_dmarc.sub.org.example v=DMARC1; p=none; t=y\n_dmarc.org.example v=DMARC1; p=reject", "x@sub.org.example", STRANGER, Refused),
    case("another text beside it does not count", "_dmarc.own.example something else\n_dmarc.own.example v=DMARC1; p=reject", "x@own.example", STRANGER, Refused),
    case("another text alone is no record", "_dmarc.own.example v=spf1 -all", "x@own.example", STRANGER, Taken("none")),
    case("the version comes first", "_dmarc.own.example p=reject; v=DMARC1", "x@own.example", STRANGER, Taken("none")),
    case("no p, but somebody wants reports", "_dmarc.own.example v=DMARC1; rua=mailto:d@own.example", "x@own.example", STRANGER, Taken("fail")),
    case("no p, and nobody wants reports", "_dmarc.own.example v=DMARC1; aspf=s", "x@own.example", STRANGER, Taken("none")),
    case("reports elsewhere, not agreed to there, change nothing", "_dmarc.own.example v=DMARC1; p=reject; rua=mailto:d@elsewhere.example; ruf=mailto:d@elsewhere.example", "x@own.example", STRANGER, Refused),
    case("a public suffix with a policy", "_dmarc.bank.example v=DMARC1; p=reject; psd=y", "x@one.bank.example", STRANGER, Refused),
    case("members of a public suffix are not each other", "_dmarc.bank.example v=DMARC1; p=reject; psd=y\ntwo.bank.example v=spf1 ip4:192.0.2.9 -all", "x@one.bank.example", "x@two.bank.example", Refused),
    case("a member of a public suffix and what is below it", "_dmarc.bank.example v=DMARC1; p=reject; psd=y\nmail.one.bank.example v=spf1 ip4:192.0.2.9 -all", "x@one.bank.example", "x@mail.one.bank.example", Taken("pass")),
    case("psd=n: the domain ends here", "_dmarc.corp.org.example v=DMARC1; p=reject; psd=n\n_dmarc.org.example v=DMARC1; p=none\nhr.org.example v=spf1 ip4:192.0.2.9 -all", "x@a.corp.org.example", "x@hr.org.example", Refused),
    case("psd=n: within it", "_dmarc.corp.org.example v=DMARC1; p=reject; psd=n\nb.corp.org.example v=spf1 ip4:192.0.2.9 -all", "x@a.corp.org.example", "x@b.corp.org.example", Taken("pass")),
    case("relaxed: of one organisation", "_dmarc.org.example v=DMARC1; p=reject\nb.org.example v=spf1 ip4:192.0.2.9 -all", "x@a.org.example", "x@b.org.example", Taken("pass")),
    case("strict: not the same name", "_dmarc.org.example v=DMARC1; p=reject; aspf=s\nb.org.example v=spf1 ip4:192.0.2.9 -all", "x@a.org.example", "x@b.org.example", Refused),
    case("strict: the same name", "_dmarc.org.example v=DMARC1; p=reject; aspf=s\na.org.example v=spf1 ip4:192.0.2.9 -all", "x@a.org.example", "x@a.org.example", Taken("pass")),
    case("a long name, its organisation far above", "_dmarc.deep.example v=DMARC1; p=reject", DEEP, STRANGER, Refused),
    case("of a long name the labels before the last seven are passed over", "_dmarc.b.c.d.e.f.g.h.deep.example v=DMARC1; p=none; psd=n\n_dmarc.deep.example v=DMARC1; p=reject", DEEP, STRANGER, Refused),
    case("the last seven are asked for", "_dmarc.d.e.f.g.h.deep.example v=DMARC1; p=none; psd=n\n_dmarc.deep.example v=DMARC1; p=reject", DEEP, STRANGER, Taken("fail")),
];

#[tokio::test]
async fn what_domains_say_of_their_names_is_followed() {
    let world = World::light().await;
    let mut wrong = Vec::new();
    for Case { story, records, from, sender, fate } in CASES {
        let mut zone: Vec<(&str, String)> = Vec::new();
        for (name, text) in records.lines().map(|line| line.split_once(' ').expect("a name and a text")) {
            match zone.iter_mut().find(|(known, _)| *known == name) {
                Some((_, texts)) => texts.extend(["\n", text]),
                None => zone.push((name, text.to_owned())),
            }
        }
        let names = Names::serve(&zone).await;
        let text = format!("From: {from}\r\nSubject: x\r\n\r\nx\r\n");
        let (reply, _) = send(&world, &section("enforce", &names), sender, &text).await;
        let (noted, stored) = send(&world, &section("note", &names), sender, &text).await;
        assert!(noted.starts_with("250"), "{story}: noting refuses nobody: {noted}");
        let word = stored.split("dmarc=").nth(1).and_then(|rest| rest.split([' ', ';', '\r']).next()).unwrap_or("none");
        let found = if reply.starts_with("550 5.7.26") { "refused" } else { word };
        let wanted = match fate {
            Refused => "refused",
            Taken(word) => word,
        };
        if found != wanted || !(reply.starts_with("250") || reply.starts_with("550 5.7.26")) {
            wrong.push(format!("{story}: {found} instead of {wanted}: {reply}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}
