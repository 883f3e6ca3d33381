//! Where the server is and how to reach it: the `catalog.url` of the settings, made ready to connect with.
//!
//! A secret never stands in an error: the text itself is not repeated, only what is wrong with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::values::word;
use crate::error::{Error, Kind, Result};
use crate::store::catalog::CatalogSettings;

/// Longest text read from a `file:` or `credential:` reference.
const LONGEST: u64 = 16 * 1024;

/// Everything needed to connect, again and again.
#[derive(Clone)]
pub(super) struct Address {
    pub config: Config,
    pub tls: Option<MakeRustlsConnect>,
    /// A connection must be made in this time.
    pub connect: Duration,
    /// A question must be answered in this time.
    pub answer: Duration,
}

impl Address {
    /// From `postgres://…`, `file:/path` or `credential:NAME`.
    pub(super) fn read(settings: &CatalogSettings, node: &str) -> Result<Self> {
        let (connect, answer) = (settings.connect.0, settings.answer.0);
        let url = resolve(&settings.url, std::env::var_os("CREDENTIALS_DIRECTORY").as_deref().map(Path::new))?;
        let (url, authority) = split_options(&url);
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            invalid(format!("is not understood ({error}: {cause}); write it like postgres://user@host/database"))
        })?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(connect);
        }
        if config.get_application_name().is_none() {
            config.application_name(format!("stoa {node}"));
        }
        config.keepalives_idle(answer);
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(answer);
        }
        let tls = match config.get_ssl_mode() {
            SslMode::Require => Some(MakeRustlsConnect::new(client(authority.as_deref())?)),
            _ => None,
        };
        Ok(Self { config, tls, connect, answer })
    }

    /// One connection; its driver runs beside until the client is dropped.
    pub(super) async fn connect(&self) -> Result<Client> {
        let made = tokio::time::timeout(self.connect * 2, async {
            match &self.tls {
                None => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
                Some(tls) => {
                    let (client, connection) = self.config.connect(tls.clone()).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
            }
        });
        match made.await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => {
                let error: Error = word(error);
                Err(Error::new(Kind::Unavailable, "the catalog's PostgreSQL cannot be reached").with(error.detail()))
            }
            Err(_) => Err(Error::new(Kind::Unavailable, "the catalog's PostgreSQL did not answer in time")),
        }
    }
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Invalid, format!("catalog.url {what}"))
}

/// The text itself, or the one a reference leads to.
fn resolve(url: &str, credentials: Option<&Path>) -> Result<String> {
    if url.is_empty() {
        return Err(invalid("is empty; with engine = \"postgres\" write it like postgres://user@host/database"));
    }
    if let Some(path) = url.strip_prefix("file:") {
        return first_line(Path::new(path));
    }
    if let Some(name) = url.strip_prefix("credential:") {
        if name.is_empty() || name.contains('/') || name == ".." {
            return Err(invalid(format!("names the credential `{name}`, which is not a plain name")));
        }
        let folder = credentials.ok_or_else(|| {
            invalid(
                "names a credential, but CREDENTIALS_DIRECTORY is not set: start under systemd with LoadCredential=",
            )
        })?;
        return first_line(&folder.join(name));
    }
    Ok(url.to_owned())
}

fn first_line(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        .map_err(|error| invalid(format!("refers to {}, which cannot be read: {error}", path.display())))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(invalid(format!("refers to {}, whose first line is empty", path.display()))),
    }
}

/// Takes out the options the driver does not know: `sslrootcert` is ours, and `verify-full` is what `require` means here.
fn split_options(url: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mut authority = None;
    let mut kept = Vec::new();
    for option in query.split('&') {
        match option.split_once('=') {
            Some(("sslrootcert", path)) => {
                authority = Some(percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned());
            }
            Some(("sslmode", "verify-ca" | "verify-full")) => kept.push("sslmode=require"),
            _ => kept.push(option),
        }
    }
    (format!("{base}?{}", kept.join("&")), authority)
}

/// A TLS client that trusts the named authority, or the public ones.
fn client(authority: Option<&str>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match authority {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let unreadable =
                |error: String| invalid(format!("names sslrootcert {path}, which cannot be used: {error}"));
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unreadable("there is no certificate in it".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(Error::internal)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_leads_to_the_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("url");
        std::fs::write(&file, "postgres://u:p@h/db\n").expect("a file");
        let direct = resolve(&format!("file:{}", file.display()), None).expect("a file");
        assert_eq!(direct, "postgres://u:p@h/db");
        assert_eq!(resolve("credential:url", Some(folder.path())).expect("a credential"), direct);
        for wrong in ["", "credential:url", "credential:../url", "file:/nonexistent"] {
            assert_eq!(resolve(wrong, None).expect_err(wrong).kind(), Kind::Invalid);
        }
    }

    #[test]
    fn options_of_ours_are_taken_out() {
        let (url, authority) =
            split_options("postgres://u@h/db?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&port=1");
        assert_eq!(
            (url.as_str(), authority.as_deref()),
            ("postgres://u@h/db?sslmode=require&port=1", Some("/etc/ca.pem"))
        );
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        let at = |url: &str| CatalogSettings { url: url.into(), ..CatalogSettings::default() };
        let refused = Address::read(&at("postgres://u:hunter2@h/db?nonsense=1"), "n").err().expect("refused");
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(refused.public().contains("nonsense") && !refused.detail().contains("hunter2"), "{refused}");
        let tls = Address::read(&at("postgres://u@h/db?sslmode=require"), "n").expect("TLS with public authorities");
        assert!(tls.tls.is_some());
    }
}
