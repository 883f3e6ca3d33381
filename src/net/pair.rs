//! The certificate and its key: read from PEM, or a self-signed pair made once and kept under `data/tls`.
//!
//! A pair that carries our mark in its first line is ours to renew; any other file in that place belongs to the operator and is
//! never overwritten.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::certificate;
use super::tls_settings::{Place, TlsSettings};
use crate::error::{Error, Kind, Result};
use crate::telemetry::metric;

/// First words of the line before the certificate: what follows is its last day and the names it is for.
const MARK: &str = "# self-signed by stoa, valid until";
/// Apple's programs trust no server certificate that is valid for more than 825 days.
const VALID_DAYS: i64 = 820;
/// A pair of ours with fewer days left is made anew.
const RENEW_DAYS: i64 = 30;
/// A certificate with fewer days left is worth a warning at each start and reload.
const WARN_DAYS: i64 = 14;

/// Reads what the settings name, or our own pair, and says when it ends.
pub(super) fn load(
    settings: &TlsSettings,
    data: &Path,
    names: &[String],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>> {
    let pair = choose(settings, data, names, provider)?;
    if let Some(until) = until(&pair) {
        metric::certificate_expires(until.as_second());
    }
    warn(&settings.certificate, &pair);
    Ok(pair)
}

/// Reads one of the further pairs.
pub(super) fn read_place(place: &Place, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let pair = read(&located("certificate", &place.certificate)?, &located("key", &place.key)?, provider)?;
    warn(&place.certificate, &pair);
    Ok(pair)
}

/// When it ends.
fn until(pair: &CertifiedKey) -> Option<Timestamp> {
    pair.end_entity_cert().ok().and_then(|der| certificate::not_after(der))
}

/// A word in the log before clients refuse it, and after.
fn warn(file: &str, pair: &CertifiedKey) {
    if let Some(words) = until(pair).and_then(ending) {
        let names = pair.end_entity_cert().map(|der| certificate::names(der).join(" ")).unwrap_or_default();
        tracing::warn!(target: "stoa::net", file, names, "{words}");
    }
}

/// What is to be said of a certificate that ends then; nothing while there is time.
fn ending(until: Timestamp) -> Option<String> {
    let days = until.duration_since(Timestamp::now()).as_hours() / 24;
    match until < Timestamp::now() {
        true => Some(format!("this TLS certificate has expired ({until}); clients refuse it")),
        false if days < WARN_DAYS => Some(format!("this TLS certificate ends in {days} days ({until}); renew it")),
        false => None,
    }
}

/// What `stoa check` says of every certificate that is named: for whom and until when, or that this is soon. Files that cannot be read
/// are left out: opening them says why.
#[must_use]
pub fn examine(settings: &TlsSettings) -> Vec<(String, std::result::Result<String, String>)> {
    let first = Place { certificate: settings.certificate.clone(), key: settings.key.clone() };
    let named = [&first].into_iter().chain(&settings.certificates).filter(|place| !place.certificate.is_empty());
    let one = |place: &Place| {
        let chain = located("certificate", &place.certificate).and_then(|path| chain(&path));
        let der = chain.ok()?.into_iter().next()?;
        let until = certificate::not_after(&der)?;
        let said = format!("for {} until {until}", certificate::names(&der).join(" "));
        Some((place.certificate.clone(), ending(until).map_or(Ok(said), Err)))
    };
    named.filter_map(one).collect()
}

fn choose(
    settings: &TlsSettings,
    data: &Path,
    names: &[String],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>> {
    match (settings.certificate.is_empty(), settings.key.is_empty()) {
        (true, true) => own(&data.join("tls"), names, provider),
        (false, false) => {
            let certificate = located("certificate", &settings.certificate)?;
            let key = located("key", &settings.key)?;
            read(&certificate, &key, provider)
        }
        (false, true) => {
            Err(invalid("[tls] certificate is set but key is not; set both, or neither for a self-signed pair"))
        }
        (true, false) => {
            Err(invalid("[tls] key is set but certificate is not; set both, or neither for a self-signed pair"))
        }
    }
}

fn invalid(words: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, words.into())
}

/// The file a setting means: a path, or a credential systemd handed over.
fn located(key: &str, value: &str) -> Result<PathBuf> {
    let Some(name) = value.strip_prefix("credential:") else { return Ok(PathBuf::from(value)) };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(invalid(format!("[tls] {key}: `{value}` is not the name of a credential")));
    }
    let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
        return Err(invalid(format!(
            "[tls] {key} = `{value}`, but systemd passed no credentials; add `LoadCredential={name}:/path` to the unit"
        )));
    };
    Ok(Path::new(&folder).join(name))
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let chain = chain(certificate)?;
    let text = contents("key", key)?;
    let private =
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| unreadable("key", key, "a private key", &error))?;
    let made = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => invalid(format!(
            "[tls] {} is not the key of {}; give the two that belong together",
            key.display(),
            certificate.display()
        )),
        error => invalid(format!(
            "[tls] {} and {} cannot be used: {error}; the key must be RSA, ECDSA P-256/P-384/P-521 or Ed25519",
            certificate.display(),
            key.display()
        )),
    })?;
    Ok(Arc::new(made))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = contents("certificate", path)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|error| unreadable("certificate", path, "a certificate", &error))?;
    if chain.is_empty() {
        return Err(unreadable("certificate", path, "a certificate", &pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn contents(key: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| invalid(format!("[tls] {key}: cannot read {}: {error}", path.display())).with(error))
}

fn unreadable(key: &str, path: &Path, wanted: &str, error: &pem::Error) -> Error {
    let what = match error {
        pem::Error::NoItemsFound => format!("there is no {} in it", wanted.trim_start_matches("a ")),
        pem::Error::MissingSectionEnd { .. } => "it is cut short: a line `-----END …-----` is missing".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a line `-----BEGIN …-----` is damaged".to_owned(),
        pem::Error::Base64Decode(_) => "a line of it is not base64".to_owned(),
        other => other.to_string(),
    };
    invalid(format!("[tls] {key}: {} does not hold {wanted} in PEM form: {what}", path.display()))
}

/// Our own pair: the one that is there while it fits, else a new one.
fn own(folder: &Path, names: &[String], provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let names = subjects(names);
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    match fs::read_to_string(&certificate) {
        Ok(text) if !text.starts_with(MARK) => return read(&certificate, &key, provider),
        Ok(text) if fits(&text, &names, today) => {
            if let Ok(pair) = read(&certificate, &key, provider) {
                return Ok(pair);
            }
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && !key.exists() => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(invalid(format!(
                "{} is there without its certificate; put cert.pem beside it, or remove it and a new pair is made",
                key.display()
            )));
        }
        Err(error) => {
            return Err(invalid(format!("cannot read {}: {error}", certificate.display())).with(error));
        }
    }
    make(folder, &certificate, &key, &names, today)?;
    read(&certificate, &key, provider)
}

/// What the certificate is for: the names given and this machine by its own words.
fn subjects(names: &[String]) -> Vec<String> {
    let given = names.iter().map(|name| name.trim().trim_end_matches('.').to_ascii_lowercase());
    let mut all = Vec::new();
    for name in given.chain(["localhost", "127.0.0.1", "::1"].map(String::from)) {
        let usable = !name.is_empty() && name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_graphic());
        if usable && !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn mark(until: Date, names: &[String]) -> String {
    format!("{MARK} {until} for {}", names.join(" "))
}

fn fits(text: &str, names: &[String], today: Date) -> bool {
    let Some(line) = text.lines().next() else { return false };
    let Some((until, held)) = line.strip_prefix(MARK).and_then(|rest| rest.trim_start().split_once(" for ")) else {
        return false;
    };
    let fresh =
        until.parse::<Date>().is_ok_and(|until| today.checked_add(RENEW_DAYS.days()).is_ok_and(|soon| soon < until));
    fresh && held.split(' ').eq(names.iter().map(String::as_str))
}

fn make(folder: &Path, certificate: &Path, key: &Path, names: &[String], today: Date) -> Result<()> {
    let day = |date: Date| {
        let part = |number: i8| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    let until = today.checked_add(VALID_DAYS.days()).map_err(Error::internal)?;
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(Error::internal)?;
    params.not_before = day(today.yesterday().unwrap_or(today));
    params.not_after = day(until);
    params.distinguished_name = rcgen::DistinguishedName::new();
    let title = names.first().map_or("localhost", String::as_str);
    params.distinguished_name.push(rcgen::DnType::CommonName, title);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let secret = rcgen::KeyPair::generate().map_err(Error::internal)?;
    let signed = params.self_signed(&secret).map_err(Error::internal)?;

    let cannot = |path: &Path, error: io::Error| {
        let words = format!("cannot write {}: {error}; the self-signed certificate needs a place", path.display());
        Error::new(Kind::Unavailable, words).with(error)
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| cannot(folder, error))?;
    // The marked certificate first: a crash in between leaves it without its key, which is then made anew.
    let text = format!("{}\n{}", mark(until, names), signed.pem());
    place(certificate, text.as_bytes()).map_err(|error| cannot(certificate, error))?;
    place(key, secret.serialize_pem().as_bytes()).map_err(|error| cannot(key, error))?;
    tracing::info!(certificate = %certificate.display(), names = %names.join(" "), until = %until, "made a self-signed certificate");
    Ok(())
}

/// The whole file or none of it, readable by us alone.
fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::net::tls::provider;

    fn own_pair(data: &Path, names: &[&str]) -> Result<Arc<CertifiedKey>> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        load(&TlsSettings::default(), data, &names, &provider())
    }

    #[test]
    fn our_own_pair_is_kept_until_the_names_change_and_only_we_can_read_its_key() {
        let data = tempfile::tempdir().unwrap();
        let first = own_pair(data.path(), &["example.org"]).unwrap();
        let again = own_pair(data.path(), &["Example.org."]).unwrap();
        assert_eq!(first.cert, again.cert);
        let other = own_pair(data.path(), &["example.net"]).unwrap();
        assert_ne!(first.cert, other.cert);
        for name in ["key.pem", "cert.pem"] {
            assert_eq!(fs::metadata(data.path().join("tls").join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_crash_between_the_two_files_is_healed() {
        let data = tempfile::tempdir().unwrap();
        own_pair(data.path(), &[]).unwrap();
        fs::remove_file(data.path().join("tls/key.pem")).unwrap();
        own_pair(data.path(), &[]).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        own_pair(elsewhere.path(), &[]).unwrap();
        fs::copy(elsewhere.path().join("tls/key.pem"), data.path().join("tls/key.pem")).unwrap();
        own_pair(data.path(), &[]).unwrap();
    }

    #[test]
    fn a_pair_of_the_operator_in_our_place_is_never_overwritten() {
        let data = tempfile::tempdir().unwrap();
        own_pair(data.path(), &[]).unwrap();
        let path = data.path().join("tls/cert.pem");
        let theirs = fs::read_to_string(&path).unwrap().lines().skip(1).collect::<Vec<_>>().join("\n");
        fs::write(&path, &theirs).unwrap();
        own_pair(data.path(), &["other.example"]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
    }

    #[test]
    fn what_is_wrong_with_which_file_is_said_in_words() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        own_pair(one.path(), &[]).unwrap();
        own_pair(two.path(), &[]).unwrap();
        let path = |folder: &tempfile::TempDir, name: &str| folder.path().join("tls").join(name).display().to_string();
        let said = |certificate: String, key: String| {
            load(&TlsSettings { certificate, key, ..TlsSettings::default() }, one.path(), &[], &provider())
                .unwrap_err()
                .public()
                .to_owned()
        };
        let words = said(path(&one, "cert.pem"), path(&two, "key.pem"));
        assert!(words.contains("is not the key of"), "{words}");
        let words = said(path(&one, "key.pem"), path(&one, "key.pem"));
        assert!(words.contains("does not hold a certificate"), "{words}");
        let words = said(path(&one, "cert.pem"), path(&one, "cert.pem"));
        assert!(words.contains("does not hold a private key"), "{words}");
        let words = said("/nowhere/cert.pem".into(), path(&one, "key.pem"));
        assert!(words.contains("/nowhere/cert.pem") && words.contains("No such file"), "{words}");
        let words = said(path(&one, "cert.pem"), String::new());
        assert!(words.contains("key is not"), "{words}");
        let words = said("credential:../x".into(), path(&one, "key.pem"));
        assert!(words.contains("not the name of a credential"), "{words}");
    }
}
