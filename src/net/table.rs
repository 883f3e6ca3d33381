//! Which certificate a client is shown: by the name it asks for (SNI, RFC 6066 §3; FTP's HOST, RFC 7151), else the first one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;

use super::tls_settings::TlsSettings;
use super::{certificate, pair};
use crate::error::Result;

/// All pairs, by the names their certificates are for.
#[derive(Debug)]
pub(super) struct Table {
    default: Arc<CertifiedKey>,
    named: HashMap<String, Arc<CertifiedKey>>,
}

impl Table {
    /// Reads every pair the settings name, and says when each ends.
    ///
    /// # Errors
    /// What is wrong with which file, in words; of all that is wrong, the first.
    pub(super) fn load(
        settings: &TlsSettings,
        data: &Path,
        names: &[String],
        provider: &CryptoProvider,
    ) -> Result<Self> {
        let default = pair::load(settings, data, names, provider)?;
        let mut table = Self { default: Arc::clone(&default), named: HashMap::new() };
        table.add(&default);
        for place in &settings.certificates {
            let pair = pair::read_place(place, provider)?;
            if table.add(&pair) == 0 {
                let file = &place.certificate;
                tracing::warn!(target: "stoa::net", %file, "this certificate is never shown: all its names are those of others");
            }
        }
        Ok(table)
    }

    /// The first pair of a name keeps it. Says for how many names this one is shown.
    fn add(&mut self, pair: &Arc<CertifiedKey>) -> usize {
        let mut added = 0;
        let names = pair.end_entity_cert().map(|der| certificate::names(der)).unwrap_or_default();
        for name in names {
            self.named.entry(name).or_insert_with(|| {
                added += 1;
                Arc::clone(pair)
            });
        }
        added
    }

    /// The pair for a name: exactly, by the wildcard of its domain (RFC 9525 §6.3: one label), else the default.
    pub(super) fn find(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let Some(name) = name else { return Arc::clone(&self.default) };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let wild = || self.named.get(&format!("*.{}", name.split_once('.')?.1));
        Arc::clone(self.named.get(&name).or_else(wild).unwrap_or(&self.default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::provider;
    use crate::net::tls_settings::Place;

    fn place(folder: &Path, file: &str, names: &[&str]) -> Place {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let path = |end: &str| folder.join(format!("{file}.{end}"));
        std::fs::write(path("crt"), made.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        Place { certificate: path("crt").display().to_string(), key: path("key").display().to_string() }
    }

    #[test]
    fn the_most_particular_certificate_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let first = place(folder.path(), "first", &["a.org", "10.0.0.1"]);
        let certificates =
            vec![place(folder.path(), "wild", &["*.a.org"]), place(folder.path(), "exact", &["www.a.org", "A.ORG"])];
        let settings = TlsSettings { certificate: first.certificate, key: first.key, certificates };
        let table = Table::load(&settings, folder.path(), &[], &provider()).unwrap();
        let names = |name: Option<&str>| certificate::names(table.find(name).end_entity_cert().unwrap()).join(" ");
        assert_eq!(names(Some("www.a.org")), "www.a.org a.org");
        assert_eq!(names(Some("FTP.a.org.")), "*.a.org");
        for other in [None, Some("a.org"), Some("x.y.a.org"), Some("b.org"), Some("org"), Some("")] {
            assert_eq!(names(other), "a.org 10.0.0.1", "{other:?}");
        }
    }

    #[test]
    fn a_pair_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut wrong = place(folder.path(), "wrong", &["a.org"]);
        wrong.key = wrong.certificate.clone();
        let settings = TlsSettings { certificates: vec![wrong.clone()], ..TlsSettings::default() };
        let error = Table::load(&settings, folder.path(), &[], &provider()).unwrap_err();
        assert!(error.public().contains(&wrong.certificate) && error.public().contains("private key"), "{error}");
    }
}
