//! Where a message really comes from: SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 9989) and ARC (RFC 8617), by `mail-auth`; SPF by [`spf`].
//!
//! The header section is held, the body only hashed as it passes, so a large message costs no more memory than a small one. Names are
//! looked up once all has come, within a bounded time; what cannot be looked up is `temperror` and refuses nobody.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mail_auth::common::crypto::{HashAlgorithm, HashContext, HashImpl, Sha256};
use mail_auth::dkim::Canonicalization;
use mail_auth::dkim::canonicalize::BodyHasher;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::{
    ArcOutput, AuthenticatedMessage, AuthenticationResults, DkimOutput, DkimResult, DmarcOutput, DmarcResult,
    MessageAuthenticator, SpfOutput, SpfResult,
};

use super::dmarc;
use super::settings::Verify;
use super::spf;
use super::status::Status;
use crate::error::{Error, Kind, Result};
use crate::hub::{Proof, Verdict};

/// A header section beyond this is not checked for signatures.
const LARGEST_HEAD: usize = 256 << 10;
/// Signatures looked at in one message.
const MOST_SIGNATURES: usize = 8;
/// One question to a name server, and how often it is asked.
const QUESTION: (Duration, usize) = (Duration::from_secs(3), 2);

/// What checks messages, shared by all conversations of a listener.
pub(super) struct Checker {
    authenticator: MessageAuthenticator,
    /// All lookups for one message.
    time: Duration,
    enforce: bool,
}

impl Checker {
    /// `None` when nothing is to be checked. `servers`: name servers to ask; empty: the system's.
    ///
    /// # Errors
    /// `Invalid`: no name server of that form, or none in the system's configuration.
    pub(super) fn open(verify: Verify, servers: &[String], time: Duration) -> Result<Option<Arc<Self>>> {
        let enforce = match verify {
            Verify::Off => return Ok(None),
            Verify::Note => false,
            Verify::Enforce => true,
        };
        let built = if servers.is_empty() {
            MessageAuthenticator::new_system_conf()
        } else {
            let servers = servers.iter().map(|text| name_server(text)).collect::<Result<Vec<_>>>()?;
            let mut options = ResolverOpts::default();
            (options.timeout, options.attempts) = QUESTION;
            MessageAuthenticator::new(ResolverConfig::from_parts(None, Vec::new(), servers), options)
        };
        let authenticator = built.map_err(|error| {
            let says = format!("[smtp] verify needs a name server: {error}; name one with dns = [\"192.0.2.53\"]");
            Error::new(Kind::Invalid, says)
        })?;
        Ok(Some(Arc::new(Self { authenticator, time, enforce })))
    }
}

/// `192.0.2.53`, `192.0.2.53:5353` or `[2001:db8::53]:53`.
fn name_server(text: &str) -> Result<NameServerConfig> {
    let address = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
    let address = address.map_err(|_| {
        Error::new(
            Kind::Invalid,
            format!("[smtp] dns: `{text}` is no address; write it like 192.0.2.53 or 192.0.2.53:53"),
        )
    })?;
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for way in &mut server.connections {
        way.port = address.port();
    }
    Ok(server)
}

/// Who claims to send a message, and to whom.
pub(super) struct Claim {
    /// The client's address.
    pub address: IpAddr,
    /// What it called itself.
    pub helo: String,
    /// Reverse path; empty for `<>`.
    pub sender: String,
    /// Our name, the authserv-id.
    pub host: String,
}

/// A body hash some signature asks for (RFC 6376 §3.7).
struct Digest {
    canonical: Canonicalization,
    hasher: BodyHasher<<Sha256 as HashImpl>::Context>,
    /// Blanks were held back that may be the end of a line.
    blank: bool,
}

impl Digest {
    fn new(canonical: Canonicalization) -> Self {
        Self { canonical, hasher: BodyHasher::new(Sha256::hasher(), canonical, 0), blank: false }
    }

    fn write(&mut self, chunk: &[u8]) {
        match self.canonical {
            Canonicalization::Simple => self.hasher.write(chunk),
            Canonicalization::Relaxed => self.write_relaxed(chunk),
        }
    }

    /// Without the blanks at the end of lines. The hasher ignores those itself, but takes a last line of nothing but blanks for
    /// content, where RFC 6376 §3.4.4 makes it an empty line and drops it.
    fn write_relaxed(&mut self, mut rest: &[u8]) {
        if self.blank {
            let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
            rest = rest.get(blanks..).unwrap_or_default();
            let Some(next) = rest.first() else { return };
            self.blank = false;
            if !matches!(next, b'\r' | b'\n') {
                self.hasher.write(b" ");
            }
        }
        while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
            let (line, behind) = rest.split_at(end);
            self.hasher.write(without_blanks(line));
            let breaks = behind.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let (breaks, behind) = behind.split_at(breaks);
            self.hasher.write(breaks);
            rest = behind;
        }
        let line = without_blanks(rest);
        self.hasher.write(line);
        self.blank = line.len() < rest.len();
    }

    fn finish(self) -> Vec<u8> {
        self.hasher.finish().0.complete().as_ref().to_vec()
    }
}

/// A line without the blanks at its end.
fn without_blanks(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1);
    line.get(..end).unwrap_or_default()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Watches one message pass.
pub(super) struct Prover {
    checker: Arc<Checker>,
    claim: Claim,
    /// The trace fields that go in front of everything.
    trace: String,
    head: Vec<u8>,
    /// Where the end of the header section is still to be looked for.
    searched: usize,
    /// Once the header section is whole; empty when it is too large.
    body: Option<Vec<Digest>>,
    /// The header section is too large to be looked at.
    oversized: bool,
}

impl Prover {
    pub(super) fn new(checker: Arc<Checker>, claim: Claim, trace: String) -> Self {
        Self { checker, claim, trace, head: Vec::new(), searched: 0, body: None, oversized: false }
    }

    /// The next bytes as the client sent them.
    pub(super) fn feed(&mut self, chunk: &[u8]) {
        if let Some(digests) = &mut self.body {
            for digest in digests {
                digest.write(chunk);
            }
            return;
        }
        self.head.extend_from_slice(chunk);
        if let Some(end) = self.end_of_head() {
            let rest = self.head.split_off(end);
            let mut digests = asked_for(&self.head);
            for digest in &mut digests {
                digest.write(&rest);
            }
            self.body = Some(digests);
        } else if self.head.len() > LARGEST_HEAD {
            self.head = Vec::new();
            self.body = Some(Vec::new());
            self.oversized = true;
        }
    }

    /// Where the content begins.
    fn end_of_head(&mut self) -> Option<usize> {
        if self.head.starts_with(b"\r\n") {
            return Some(2);
        }
        let from = self.searched.saturating_sub(3);
        self.searched = self.head.len();
        let unseen = self.head.get(from..).unwrap_or_default();
        memchr::memmem::find(unseen, b"\r\n\r\n").map(|at| from + at + 4)
    }

    /// What is known now that all has come: the proof, and the lines in front of the message.
    ///
    /// # Errors
    /// `Denied`: the owner of the sender's domain asks for such messages to be refused, and so does our configuration.
    pub(super) async fn finish(mut self) -> Result<(Proof, String)> {
        let digests = self.body.take().unwrap_or_else(|| asked_for(&self.head));
        let found = tokio::time::timeout(self.checker.time, self.look(digests)).await;
        let (proof, field, refusal) = found.unwrap_or_else(|_| too_late(&self.claim.host));
        tracing::info!(
            peer = %self.claim.address, sender = self.claim.sender, spf = proof.spf.word(), dmarc = proof.dmarc.word(),
            signed_by = proof.signed_by.join(" "), arc = proof.arc.word(), "checked where a message comes from"
        );
        if let (true, Some((status, says))) = (self.checker.enforce, refusal) {
            return Err(Error::new(Kind::Denied, says).with(Status(status)));
        }
        // RFC 5321 §4.4 wants Return-Path first, RFC 8601 §4 wants ours above what others wrote.
        let (path, received) = self.trace.split_once("\r\n").unwrap_or((&self.trace, ""));
        Ok((proof, format!("{path}\r\n{}{received}", harmless(&field))))
    }

    async fn look(&self, digests: Vec<Digest>) -> (Proof, String, Refusal) {
        let Claim { address, helo, sender, host } = &self.claim;
        let mut message = AuthenticatedMessage::parse(&self.head).unwrap_or_default();
        fill(&mut message, digests);
        let authenticator = &self.checker.authenticator;
        let asked = spf::Sender { address: *address, helo, mailbox: sender };
        let spf_domain = sender.rsplit_once('@').map_or(helo.as_str(), |(_, domain)| domain);
        let spf = SpfOutput::new(spf_domain.to_owned()).with_result(spf::check(authenticator, &asked).await);
        let dkim = authenticator.verify_dkim(&message).await;
        let arc = authenticator.verify_arc(&message).await;
        let dmarc = dmarc::verify(authenticator, DmarcParameters::new(&message, &dkim, spf_domain, &spf)).await;
        let from = message.from.first().map(String::as_str).unwrap_or_default();
        let mut results = AuthenticationResults::new(host)
            .with_spf_mailfrom_result(&spf, *address, sender, helo)
            .with_dkim_results(&dkim, from);
        if !matches!(arc.result(), DkimResult::None) {
            results = results.with_arc_result(&arc, *address);
        }
        let results = results.with_dmarc_result(&dmarc);
        let proof = proof(&spf, &dkim, &arc, &dmarc, &message);
        let refusal = match self.oversized {
            true => Some(("5.7.1", "the header is larger than what can be checked for its author".to_owned())),
            false => ambiguous(&self.head, &message).or_else(|| refusal(&spf, &dmarc, sender)),
        };
        (proof, format!("Authentication-Results: {results}\r\n"), refusal)
    }
}

/// Enhanced status (RFC 7372) and words.
type Refusal = Option<(&'static str, String)>;

/// The body hashes the signatures of this header section need.
fn asked_for(head: &[u8]) -> Vec<Digest> {
    let Some(message) = AuthenticatedMessage::parse(head) else { return Vec::new() };
    let mut asked: Vec<Canonicalization> = Vec::new();
    for (canonical, algorithm, length, _) in &message.body_hashes {
        // RFC 8301 §3.1: SHA-1 proves nothing. A length limit lets anybody append, and is not parsed.
        if *algorithm == HashAlgorithm::Sha256 && *length == 0 && !asked.contains(canonical) {
            asked.push(*canonical);
        }
    }
    asked.into_iter().map(Digest::new).collect()
}

/// Puts the hashes of the body that passed in place of those of the empty one that was parsed.
fn fill(message: &mut AuthenticatedMessage<'_>, digests: Vec<Digest>) {
    message.dkim_headers.truncate(MOST_SIGNATURES);
    message.body_hashes.iter_mut().for_each(|(.., hash)| hash.clear());
    for digest in digests {
        let canonical = digest.canonical;
        let wanted = message.body_hashes.iter_mut().find(|(how, algorithm, length, _)| {
            *how == canonical && *algorithm == HashAlgorithm::Sha256 && *length == 0
        });
        if let Some((.., place)) = wanted {
            *place = digest.finish();
        }
    }
}

fn proof(
    spf: &SpfOutput,
    dkim: &[DkimOutput<'_>],
    arc: &ArcOutput<'_>,
    dmarc: &DmarcOutput,
    message: &AuthenticatedMessage<'_>,
) -> Proof {
    let passed = dkim.iter().filter(|output| matches!(output.result(), DkimResult::Pass));
    let mut signed_by: Vec<String> =
        passed.filter_map(|output| output.signature()).map(|signature| a_label(&signature.d)).collect();
    signed_by.dedup();
    let mut domains = message.from.iter().filter_map(|from| from.rsplit_once('@')).map(|(_, domain)| a_label(domain));
    let from_domain = match (domains.next(), domains.next()) {
        (Some(only), None) => only,
        _ => String::new(),
    };
    Proof {
        spf: of_spf(spf.result()),
        signed_by,
        dmarc: of_dmarc(&dmarc.result()),
        arc: of_dkim(arc.result()),
        from_domain,
    }
}

/// A message whose author cannot be told: DMARC has no verdict on it, and whoever reads it sees whom its sender likes
/// (RFC 5322 §3.6.2, RFC 7489 §6.6.1). A message without any `From` shows nobody.
fn ambiguous(head: &[u8], message: &AuthenticatedMessage<'_>) -> Refusal {
    let mut domains: Vec<String> = message
        .from
        .iter()
        .map(|from| from.rsplit_once('@').map(|(_, domain)| a_label(domain)).unwrap_or_default())
        .collect();
    domains.sort();
    domains.dedup();
    let says = match (authors(head), domains.as_slice()) {
        (0, _) => return None,
        (1, [domain]) if !domain.is_empty() => return None,
        (1, [] | [_]) => "its From field holds no address",
        (1, _) => "its From field names authors of several domains",
        _ => "it has more than one From field",
    };
    Some(("5.7.1", format!("it cannot be told who sends this message: {says}")))
}

/// How many `From` fields a header section has, by any spelling a mail program could take for one.
fn authors(head: &[u8]) -> usize {
    let is_author = |line: &&[u8]| {
        let name = line.iter().position(|byte| *byte == b':').and_then(|colon| line.get(..colon)).unwrap_or_default();
        name.trim_ascii_end().eq_ignore_ascii_case(b"from")
    };
    head.split(|byte| matches!(byte, b'\n' | b'\r')).filter(is_author).count()
}

/// What the sender's domain asks for, where it asks for anything.
fn refusal(spf: &SpfOutput, dmarc: &DmarcOutput, sender: &str) -> Refusal {
    let domain = dmarc.domain();
    match (dmarc.result(), dmarc.policy()) {
        (DmarcResult::Fail(_), Policy::Reject) => {
            Some(("5.7.26", format!("{domain} asks to refuse mail that it neither sent nor signed (DMARC)")))
        }
        (DmarcResult::None, _) if spf.result() == SpfResult::Fail => {
            Some(("5.7.23", format!("the domain of <{sender}> does not send from your address (SPF)")))
        }
        _ => None,
    }
}

fn too_late(host: &str) -> (Proof, String, Refusal) {
    let unknown = Verdict::TempError;
    let proof = Proof { spf: unknown, dmarc: unknown, arc: unknown, ..Proof::default() };
    let field =
        format!("Authentication-Results: {host};\r\n\tspf=temperror;\r\n\tdkim=temperror;\r\n\tdmarc=temperror\r\n");
    (proof, field, None)
}

fn of_spf(result: SpfResult) -> Verdict {
    match result {
        SpfResult::Pass => Verdict::Pass,
        SpfResult::Fail => Verdict::Fail,
        SpfResult::SoftFail => Verdict::SoftFail,
        SpfResult::Neutral => Verdict::Neutral,
        SpfResult::TempError => Verdict::TempError,
        SpfResult::PermError => Verdict::PermError,
        SpfResult::None => Verdict::None,
    }
}

fn of_dkim(result: &DkimResult) -> Verdict {
    match result {
        DkimResult::Pass => Verdict::Pass,
        DkimResult::Neutral(_) => Verdict::Neutral,
        DkimResult::Fail(_) => Verdict::Fail,
        DkimResult::PermError(_) => Verdict::PermError,
        DkimResult::TempError(_) => Verdict::TempError,
        DkimResult::None => Verdict::None,
    }
}

fn of_dmarc(result: &DmarcResult) -> Verdict {
    match result {
        DmarcResult::Pass => Verdict::Pass,
        DmarcResult::Fail(_) => Verdict::Fail,
        DmarcResult::TempError(_) => Verdict::TempError,
        DmarcResult::PermError(_) => Verdict::PermError,
        DmarcResult::None => Verdict::None,
    }
}

fn a_label(domain: &str) -> String {
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase())
}

/// Whatever a peer's name or signature says in it, the field stays one field: only our own folds end a line.
fn harmless(field: &str) -> String {
    let field = field.strip_suffix("\r\n").unwrap_or(field);
    let lines =
        field.split("\r\n\t").map(|line| line.chars().filter(|letter| !letter.is_control()).collect::<String>());
    lines.collect::<Vec<_>>().join("\r\n\t") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stays_one_field() {
        assert_eq!(harmless("A: b;\r\n\tc\r\nX: y\n\r\n"), "A: b;\r\n\tcX: y\r\n");
    }

    #[test]
    fn a_message_of_several_authors_is_ambiguous() {
        let says = |head: &str| {
            let message = AuthenticatedMessage::parse(head.as_bytes()).unwrap_or_default();
            ambiguous(head.as_bytes(), &message).map(|(_, says)| says).unwrap_or_default()
        };
        for (head, expected) in [
            ("From: a@x.example\r\n\r\n", ""),
            ("Subject: nobody\r\n\r\n", ""),
            ("From: a@x.example, b@X.example\r\nSender: a@x.example\r\n\r\n", ""),
            ("From: a@x.example\r\nFrom: b@y.example\r\n\r\n", "more than one"),
            ("From: a@x.example\r\nFrom : b@y.example\r\n\r\n", "more than one"),
            ("From: a@x.example\r\nFROM: a@x.example\r\n\r\n", "more than one"),
            ("From: a@x.example, b@y.example\r\n\r\n", "several domains"),
            ("From: g: a@x.example, b@y.example;\r\n\r\n", "several domains"),
            ("From: nobody at all\r\n\r\n", "no address"),
        ] {
            let said = says(head);
            assert_eq!(said.is_empty(), expected.is_empty(), "{head}: {said}");
            assert!(said.contains(expected), "{head}: {said}");
        }
    }

    #[test]
    fn a_relaxed_body_ends_before_its_empty_lines_wherever_it_is_cut() {
        let hash = |body: &[u8], at: usize, canonical| {
            let mut digest = Digest::new(canonical);
            let (one, two) = body.split_at(at);
            digest.write(one);
            digest.write(two);
            digest.finish()
        };
        for (body, canonical) in [
            (&b""[..], &b""[..]),
            (b" \r\n", b""),
            (b" \t", b""),
            (b"\r\n \r\n\t\r\n", b""),
            (b"\tx\r\n \r\n", b" x\r\n"),
            (b"x\r\n \r\n\r\n", b"x\r\n"),
            (b"x \t\r\n\t \r\n ", b"x\r\n"),
            (b"a  b\t\tc  \r\n \r\n  d", b"a b c\r\n\r\n d\r\n"),
            (b"  a\r\n\r\n", b" a\r\n"),
        ] {
            let mut plain = Sha256::hasher();
            mail_auth::common::headers::Writer::write(&mut plain, canonical);
            let expected = plain.complete().as_ref().to_vec();
            for at in 0..=body.len() {
                let shown = String::from_utf8_lossy(body);
                assert_eq!(hash(body, at, Canonicalization::Relaxed), expected, "{shown:?} cut at {at}");
                let mut simple = BodyHasher::new(Sha256::hasher(), Canonicalization::Simple, 0);
                simple.write(body);
                let simple = simple.finish().0.complete().as_ref().to_vec();
                assert_eq!(hash(body, at, Canonicalization::Simple), simple, "{shown:?}");
            }
        }
    }

    #[test]
    fn name_servers_are_read_with_and_without_port() {
        assert_eq!(name_server("192.0.2.53").unwrap().connections[0].port, 53);
        assert_eq!(name_server("[2001:db8::53]:5353").unwrap().connections[1].port, 5353);
        assert!(name_server("ns.example").unwrap_err().public().contains("ns.example"));
    }
}
