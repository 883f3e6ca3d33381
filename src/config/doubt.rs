//! Values that are allowed, and that hardly anybody means: each is a warning with its place.

use std::net::SocketAddr;

use super::problem::Problem;
use super::{Config, Loaded};
use crate::net::{TlsMode, local};

/// Everything that may not be meant.
pub(super) fn doubts(loaded: &Loaded) -> Vec<Problem> {
    let mut doubt = Doubt { loaded, found: Vec::new() };
    doubt.listeners();
    doubt.accounts();
    doubt.limits();
    doubt.found
}

struct Doubt<'a> {
    loaded: &'a Loaded,
    found: Vec<Problem>,
}

impl<'a> Doubt<'a> {
    fn config(&self) -> &'a Config {
        &self.loaded.config
    }

    fn note(&mut self, key: &str, what: impl Into<String>, remedy: &str) {
        let place = format!("{}: {key}", self.loaded.origins.near(key));
        self.found.push(Problem::new(place, what, remedy));
    }

    fn listeners(&mut self) {
        for (number, listen) in self.config().listen.iter().enumerate() {
            let at = format!("listen[{number}].address");
            if listen.protocol == "admin" && !is_private(&listen.address) {
                let what = format!("{} shows health and metrics to every machine that reaches it", listen.address);
                self.note(&at, what, "use 127.0.0.1 or unix:/run/stoa/admin.sock, or keep strangers out by a firewall");
            }
            if listen.trusted.iter().any(|network| is_everybody(network)) {
                let what = "every peer may say for whom it speaks, and so choose its own address";
                self.note(&format!("listen[{number}].trusted"), what, "name the proxies alone");
            }
            if matches!(listen.protocol.as_str(), "ftp" | "pop3")
                && listen.tls == TlsMode::None
                && !is_private(&listen.address)
            {
                let what = format!("{} takes passwords that everybody on the way can read", listen.protocol);
                self.note(&format!("listen[{number}].tls"), what, "use \"upgrade\" or \"implicit\"");
            }
        }
    }

    fn accounts(&mut self) {
        let config = self.config();
        let users = config.user.iter().enumerate();
        let users = users.map(|(n, it)| (format!("user[{n}]"), &it.name, &it.password_hash, &it.password_file));
        let devices = config.device.iter().enumerate();
        let devices = devices.map(|(n, it)| (format!("device[{n}]"), &it.name, &it.password_hash, &it.password_file));
        for (key, name, hash, file) in users.chain(devices) {
            if hash.is_empty() && file.is_empty() {
                let what = format!("{name} has no password and cannot sign in");
                self.note(&format!("{key}.name"), what, "add password_hash (from `stoa user hash`) or password_file");
            }
        }
    }

    fn limits(&mut self) {
        let config = self.config();
        let limits = &config.limits;
        if limits.connections_per_address > limits.connections {
            let what = format!("is more than limits.connections ({}), so one address may use all", limits.connections);
            self.note("limits.connections_per_address", what, "lower it");
        }
        if limits.proxy_from.iter().any(|network| is_everybody(network)) {
            let what = "every peer may choose its own address by a PROXY protocol header";
            self.note("limits.proxy_from", what, "name the proxies alone");
        }
        if config.login.never_ban.iter().any(|network| is_everybody(network)) {
            self.note("login.never_ban", "no address is ever refused, however many passwords it guesses", "narrow it");
        }
        if config.storage.keep_free.0 == 0 {
            let what = "uploads may fill the disk to its last byte, and then nothing can be recorded";
            self.note("storage.keep_free", what, "keep at least 64 MiB free");
        }
        if config.log.level.split(',').all(|part| part.rsplit('=').next().is_some_and(|word| word.trim() == "off")) {
            self.note("log.level", "nothing is logged any more, not even what goes wrong", "use \"error\" at least");
        }
        let mut seen = std::collections::BTreeSet::new();
        for name in &config.domain {
            if !seen.insert(name.to_ascii_lowercase()) {
                self.note("domain", format!("`{name}` is named twice"), "name it once");
            }
        }
    }
}

/// Reached from this machine alone.
fn is_private(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    local::path(address).is_some()
        || host == "localhost"
        || address.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback())
}

/// Every address there is.
fn is_everybody(network: &str) -> bool {
    network.ends_with("/0")
}
