//! DMARC (RFC 9989) by `mail-auth`, but for names with several records: there none of them counts (§4.10), and `mail-auth` takes the first.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::time::Instant;

use mail_auth::common::to_a_label;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::hickory_resolver::proto::rr::{Name, RData};
use mail_auth::{DkimResult, DmarcOutput, DnsError, Error, MessageAuthenticator, Parameters, ResolverCache, Txt};

/// Labels of a name that are asked for beside the whole of it (§4.10).
const LABELS: usize = 7;

/// Judges a message.
pub(super) async fn verify(authenticator: &MessageAuthenticator, message: DmarcParameters<'_>) -> DmarcOutput {
    let authors = message.message.from.iter().filter_map(|from| Some(from.rsplit_once('@')?.1));
    let signers = message.dkim_output.iter().filter(|one| *one.result() == DkimResult::Pass);
    let signers = signers.filter_map(|one| Some(one.signature()?.d.as_str()));
    let names = authors.chain([message.rfc5321_mail_from_domain]).chain(signers).flat_map(walk).collect::<HashSet<_>>();
    let mut passed_over = PassedOver::default();
    for name in names {
        if is_contradicted(authenticator, &name).await {
            passed_over.0.insert(name.into_boxed_str());
        }
    }
    authenticator.verify_dmarc(Parameters::new(message).with_txt_cache(&passed_over)).await
}

/// The names at which a tree walk that begins at this domain looks for a record.
fn walk(domain: &str) -> Vec<String> {
    let domain = to_a_label(domain);
    let labels: Vec<&str> = domain.split('.').filter(|label| !label.is_empty()).collect();
    let shorter = 1..=LABELS.min(labels.len().saturating_sub(1));
    let lengths = shorter.chain((labels.len() > 1).then_some(labels.len()));
    let name = |length: usize| format!("_dmarc.{}.", labels.get(labels.len() - length..).unwrap_or_default().join("."));
    lengths.map(name).collect()
}

/// Has this name more than one record of DMARC? The resolver remembers what it is asked here.
async fn is_contradicted(authenticator: &MessageAuthenticator, name: &str) -> bool {
    let Ok(name) = Name::from_str_relaxed(name) else { return false };
    let Ok(found) = authenticator.resolver().txt_lookup(name).await else { return false };
    let texts = found.answers().iter().filter_map(|record| match &record.data {
        RData::TXT(text) => Some(text.txt_data.concat()),
        _ => None,
    });
    texts.filter(|text| is_record(text)).nth(1).is_some()
}

/// `v=DMARC1` comes first (§4.7).
fn is_record(text: &[u8]) -> bool {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(9).collect();
    text == b"v=DMARC1" || text == b"v=DMARC1;"
}

/// Names whose records do not count.
#[derive(Default)]
struct PassedOver(HashSet<Box<str>>);

impl ResolverCache<Box<str>, Txt> for PassedOver {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.contains(name).then_some(Txt::Error(Error::Dns(DnsError::InvalidRecordType)))
    }

    fn remove<Q>(&self, _name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _key: Box<str>, _value: Txt, _valid_until: Instant) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_asks_for_the_name_and_its_last_seven_labels() {
        assert_eq!(walk("example"), Vec::<String>::new());
        assert_eq!(walk("A.example."), ["_dmarc.example.", "_dmarc.a.example."]);
        let long = walk("a.b.c.d.e.f.g.h.i.example");
        assert_eq!(long.len(), 8);
        assert_eq!(long.last().map(String::as_str), Some("_dmarc.a.b.c.d.e.f.g.h.i.example."));
        assert_eq!(long.get(6).map(String::as_str), Some("_dmarc.d.e.f.g.h.i.example."));
    }

    #[test]
    fn a_record_begins_with_its_version() {
        for (text, is) in [
            ("v=DMARC1", true),
            ("v = DMARC1 ; p=none", true),
            ("v=DMARC1;p=none", true),
            ("v=DMARC12; p=none", false),
            ("p=none; v=DMARC1", false),
            ("v=dmarc1; p=none", false),
            ("", false),
        ] {
            assert_eq!(is_record(text.as_bytes()), is, "{text}");
        }
    }
}
