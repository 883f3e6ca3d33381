//! What the values mean together: every problem is collected, none stops the search for the next.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::problem::{self, Problem};
use super::{Config, Loaded};
use crate::hub::settings::GrantSettings;
use crate::hub::{TreePath, Verbs};
use crate::net::{ListenSettings, TlsMode, local};
use crate::proto::PROTOCOLS;
use crate::store::EngineKind;
use crate::units::{ByteSize, Span};

/// Runtimes at most.
const MOST_WORKERS: usize = 256;
/// Longest name of an account.
const LONGEST_NAME: usize = 64;
/// An inline body lies in the catalog for a moment: never more than this.
const LARGEST_INLINE: ByteSize = ByteSize(1 << 20);
/// Argon2id below this is no protection.
const LEAST_MEMORY: ByteSize = ByteSize(8 << 20);
/// Below this a log file is only churn.
const LEAST_LOG: ByteSize = ByteSize(64 << 10);

/// Everything that is wrong with the meaning.
pub(super) fn check(loaded: &Loaded) -> Vec<Problem> {
    let mut check = Check { loaded, problems: Vec::new() };
    check.top();
    check.catalog();
    check.listeners();
    check.limits();
    check.log();
    check.login();
    check.accounts();
    check.spaces();
    check.problems
}

struct Check<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn config(&self) -> &'a Config {
        &self.loaded.config
    }

    fn wrong(&mut self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let place = format!("{}: {key}", self.loaded.origins.near(key));
        self.problems.push(Problem::new(place, what, remedy));
    }

    fn top(&mut self) {
        let config = self.config();
        if config.data.as_os_str().is_empty() {
            self.wrong("data", "the data folder has no name", "name a folder, such as /var/lib/stoa");
        }
        if config.domain.is_empty() {
            self.wrong("domain", "no mail domain", "name at least one; `localhost` will do without mail");
        }
        for name in &config.domain {
            if !is_domain(name) {
                let what = format!("`{name}` is not a domain name");
                self.wrong("domain", what, "write it like example.org; other scripts in their xn-- form");
            }
        }
        if config.workers > MOST_WORKERS {
            let what = format!("{} runtimes", config.workers);
            self.wrong("workers", what, format!("at most {MOST_WORKERS}; 0 takes one per core"));
        }
        let (certificate, key) = (&config.tls.certificate, &config.tls.key);
        if certificate.is_empty() != key.is_empty() {
            let (key, other) =
                if key.is_empty() { ("tls.certificate", "tls.key") } else { ("tls.key", "tls.certificate") };
            self.wrong(key, format!("given without {other}"), "give both, or neither for a self-signed pair");
        }
        for (number, place) in config.tls.certificates.iter().enumerate() {
            if place.certificate.is_empty() || place.key.is_empty() {
                self.wrong(
                    &format!("tls.certificates[{number}]"),
                    "a pair with a part missing",
                    "give certificate and key",
                );
            }
        }
        let storage = &config.storage;
        if storage.inline > LARGEST_INLINE {
            let what = format!("{} is too large to ride in a commit", storage.inline);
            self.wrong("storage.inline", what, format!("at most {LARGEST_INLINE}"));
        }
        self.at_least_one("storage.attachments", storage.attachments);
        let mail = &config.mail;
        self.at_least_one("mail.mime_depth", mail.mime_depth);
        self.at_least_one("mail.mime_parts", mail.mime_parts);
        self.at_least_one("mail.mime_head", usize::try_from(mail.mime_head.0).unwrap_or(usize::MAX));
        self.some_time("storage.rescan", storage.rescan);
        self.some_time("locks.longest", config.locks.longest);
    }

    fn catalog(&mut self) {
        let catalog = &self.config().catalog;
        match (catalog.engine, catalog.url.is_empty()) {
            (EngineKind::Postgres, true) => self.wrong(
                "catalog.url",
                "empty, but the engine is postgres",
                "write postgres://user@host/db, or file:/path or credential:NAME where that text is kept",
            ),
            (EngineKind::Sqlite, false) => self.wrong(
                "catalog.url",
                "given, but the engine is sqlite",
                "set catalog.engine = \"postgres\", or leave the url out",
            ),
            _ => {}
        }
        self.at_least_one("catalog.readers", catalog.readers as usize);
        self.at_least_one("catalog.group", catalog.group as usize);
    }

    fn listeners(&mut self) {
        let config = self.config();
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        if config.listen.is_empty() {
            self.wrong("listen", "no listener", "add [[listen]] with protocol and address");
        }
        for (number, listen) in config.listen.iter().enumerate() {
            let key = format!("listen[{number}]");
            self.door(&format!("{key}.protocol"), &listen.protocol);
            if matches!(listen.protocol.as_str(), "admin" | "http") && listen.tls == TlsMode::Upgrade {
                let what = format!("{} has no upgrade to TLS", listen.protocol);
                self.wrong(&format!("{key}.tls"), what, "use \"none\" or \"implicit\"");
            }
            let trusted = listen.trusted.iter().filter(|text| *text != "unix").cloned().collect::<Vec<_>>();
            self.networks(&format!("{key}.trusted"), &trusted);
            if !listen.trusted.is_empty() && listen.protocol != "http" {
                let what = format!("{} has no forwarding headers", listen.protocol);
                self.wrong(&format!("{key}.trusted"), what, "use the PROXY protocol: limits.proxy_from");
            }
            for other in listen.options.keys().filter(|name| **name != listen.protocol) {
                let what = format!("options for {other}, but this listener speaks {}", listen.protocol);
                self.wrong(&format!("{key}.{other}"), what, "remove them, or correct `protocol`");
            }
            let address = listen.address.trim();
            if local::path(address).is_some() {
                self.unix_socket(&key, listen);
                if let Some(other) = taken.insert(address.to_owned(), number) {
                    let what = format!("{address} is taken by listen[{other}] already");
                    self.wrong(&format!("{key}.address"), what, "give each listener its own socket");
                }
                continue;
            }
            let Some(port) = port(address) else {
                let what = format!("`{address}` is not an address with a port");
                self.wrong(
                    &format!("{key}.address"),
                    what,
                    "write it like 0.0.0.0:21, 127.0.0.1:8080, [::]:25, *:21, localhost:21 or unix:/run/stoa/http.sock",
                );
                continue;
            };
            // `127.0.0.1:8080` and `127.0.0.1:08080` are one; what else is one (`*:21`, `[::]:21`) is left to the bind.
            let same = address.parse::<SocketAddr>().map_or_else(|_| address.to_owned(), |address| address.to_string());
            if let (true, Some(other)) = (port != 0, taken.insert(same, number)) {
                let what = format!("{address} is taken by listen[{other}] already");
                self.wrong(&format!("{key}.address"), what, "give each listener its own port");
            }
        }
    }

    fn unix_socket(&mut self, key: &str, listen: &ListenSettings) {
        let at = format!("{key}.address");
        if let Some(what) = local::wrong(listen) {
            self.wrong(&at, what, "write unix:/run/stoa/http.sock, with a mode such as 0660");
        }
        if !matches!(listen.protocol.as_str(), "admin" | "http") {
            let what = format!("{} is not spoken over a Unix socket", listen.protocol);
            self.wrong(&at, what, "give it an address with a port");
        }
        if listen.tls != TlsMode::None {
            self.wrong(&format!("{key}.tls"), "a Unix socket has no TLS", "use \"none\": nobody is on the way");
        }
    }

    fn limits(&mut self) {
        let limits = &self.config().limits;
        self.at_least_one("limits.connections", limits.connections);
        self.at_least_one("limits.connections_per_address", limits.connections_per_address);
        self.at_least_one("limits.connections_per_account", limits.connections_per_account);
        self.at_least_one("limits.errors", limits.errors as usize);
        self.some_time("limits.handshake", limits.handshake);
        self.some_time("limits.greeting", limits.greeting);
        self.some_time("limits.idle", limits.idle);
        self.some_time("limits.stall", limits.stall);
        self.networks("limits.proxy_from", &limits.proxy_from);
    }

    fn log(&mut self) {
        let log = &self.config().log;
        if !matches!(log.format.as_str(), "text" | "json") {
            self.wrong("log.format", format!("`{}` is not a format", log.format), "use \"text\" or \"json\"");
        }
        if let Err(what) = crate::telemetry::log::check_level(&log.level) {
            self.wrong(
                "log.level",
                what,
                "use error, warn, info, debug, trace, or a filter such as info,stoa::net=debug",
            );
        }
        if log.size < LEAST_LOG {
            self.wrong("log.size", format!("{} is too small", log.size), format!("at least {LEAST_LOG}"));
        }
    }

    fn login(&mut self) {
        let login = &self.config().login;
        self.at_least_one("login.attempts", login.attempts as usize);
        self.at_least_one("login.hashers", login.hashers);
        self.some_time("login.window", login.window);
        self.some_time("login.session", login.session);
        self.networks("login.never_ban", &login.never_ban);
        if login.memory < LEAST_MEMORY {
            self.wrong(
                "login.memory",
                format!("{} protects no password", login.memory),
                format!("at least {LEAST_MEMORY}"),
            );
        }
    }

    fn accounts(&mut self) {
        let config = self.config();
        let mut seen: BTreeMap<&str, String> = BTreeMap::new();
        for (number, user) in config.user.iter().enumerate() {
            let key = format!("user[{number}]");
            self.account(&key, &user.name, &mut seen);
            self.password(&key, &user.password_hash, &user.password_file);
            self.path(&format!("{key}.root"), &user.root);
            self.networks(&format!("{key}.networks"), &user.networks);
            user.protocols.iter().for_each(|name| self.door(&format!("{key}.protocols"), name));
            for group in user.groups.iter().filter(|group| !is_name(group)) {
                self.wrong(&format!("{key}.groups"), format!("`{group}` is not a name"), NAMES);
            }
        }
        for (number, device) in config.device.iter().enumerate() {
            let key = format!("device[{number}]");
            self.account(&key, &device.name, &mut seen);
            self.password(&key, &device.password_hash, &device.password_file);
            self.networks(&format!("{key}.networks"), &device.networks);
            device.protocols.iter().for_each(|name| self.door(&format!("{key}.protocols"), name));
            if !device.folder.is_empty() {
                self.path(&format!("{key}.folder"), &device.folder);
            }
        }
    }

    fn account(&mut self, key: &str, name: &'a str, seen: &mut BTreeMap<&'a str, String>) {
        let at = format!("{key}.name");
        if !is_name(name) {
            self.wrong(&at, format!("`{name}` is not a name"), NAMES);
        }
        if let Some(other) = seen.insert(name, key.to_owned()) {
            self.wrong(&at, format!("`{name}` is taken by {other} already"), "give each user and device its own name");
        }
    }

    fn password(&mut self, key: &str, hash: &str, file: &str) {
        let at = format!("{key}.password_hash");
        if !hash.is_empty() && !file.is_empty() {
            self.wrong(&at, "password_hash and password_file are both given", "keep one of them");
        }
        if !hash.is_empty() && !hash.starts_with("$argon2id$") {
            self.wrong(&at, "not an argon2id hash", "make one with `stoa user hash`");
        }
    }

    fn spaces(&mut self) {
        let config = self.config();
        let (mut paths, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        for (number, space) in config.space.iter().enumerate() {
            let key = format!("space[{number}]");
            if let Some(path) = self.path(&format!("{key}.path"), &space.path)
                && let Some(other) = paths.insert(path, number)
            {
                let what = format!("`{}` is space[{other}] already", space.path);
                self.wrong(&format!("{key}.path"), what, "put the two together");
            }
            if !space.address.is_empty() {
                let at = format!("{key}.address");
                if !is_name(&space.address) {
                    let what = format!("`{}` is not a local part", space.address);
                    self.wrong(&at, what, "write only what stands before @, without +");
                } else if let Some(other) = addresses.insert(&space.address, number) {
                    let what = format!("`{}` is the address of space[{other}] already", space.address);
                    self.wrong(&at, what, "give each space its own address");
                }
            }
            space.grants.iter().for_each(|grant| self.grant(&format!("{key}.grants"), grant));
        }
    }

    fn grant(&mut self, key: &str, grant: &GrantSettings) {
        let whom = match grant.to.split_once(':') {
            Some(("user" | "group" | "device", name)) => is_name(name),
            Some(_) => false,
            None => matches!(grant.to.as_str(), "users" | "everyone"),
        };
        if !whom {
            let what = format!("`{}` names nobody", grant.to);
            self.wrong(key, what, "write user:NAME, group:NAME, device:NAME, users or everyone");
        }
        match Verbs::parse(&grant.allow) {
            Err(error) => self.wrong(key, error.public().to_owned(), "correct `allow`"),
            Ok(verbs) if verbs.is_empty() => {
                self.wrong(key, format!("nothing is allowed to {}", grant.to), "name verbs, or remove the grant");
            }
            Ok(_) => {}
        }
    }

    fn door(&mut self, key: &str, name: &str) {
        let known = PROTOCOLS.iter().map(|protocol| protocol.name());
        if !known.clone().any(|known| known == name) {
            self.wrong(key, format!("unknown protocol `{name}`"), problem::suggestion(name, known));
        }
    }

    fn path(&mut self, key: &str, text: &str) -> Option<TreePath> {
        match TreePath::parse(text) {
            Ok(path) if path.parts().next() != Some("-") => return Some(path),
            Ok(_) => self.wrong(key, format!("`{text}` is reserved"), "choose a path that is not below /-/"),
            Err(error) => self.wrong(key, format!("`{text}`: {error}"), "write a path of the tree, such as /scans"),
        }
        None
    }

    fn networks(&mut self, key: &str, networks: &[String]) {
        for text in networks {
            if text.parse::<IpNet>().is_err() && text.parse::<std::net::IpAddr>().is_err() {
                let what = format!("`{text}` is not a network");
                self.wrong(key, what, "write 10.0.5.0/24, 2001:db8::/32 or a single address");
            }
        }
    }

    fn at_least_one(&mut self, key: &str, number: usize) {
        if number == 0 {
            self.wrong(key, "0 would refuse everything", "use at least 1");
        }
    }

    fn some_time(&mut self, key: &str, span: Span) {
        if span.0.is_zero() {
            self.wrong(key, "no time at all", "write a span such as 30s or 5m");
        }
    }
}

const NAMES: &str = "use lower case letters, digits, `.`, `_` and `-`, at most 64, beginning with a letter or a digit";

/// A name of an account, a group or a drop address.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    name.len() <= LONGEST_NAME
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// The port of `host:port`; an IPv6 address stands in brackets.
fn port(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    let whole = !host.contains(':') || address.parse::<SocketAddr>().is_ok();
    port.parse().ok().filter(|_| whole)
}

/// RFC 1123 §2.1: labels of letters, digits and hyphens.
fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
