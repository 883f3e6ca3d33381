//! What holds for one account: the listener's section, with the rules of single accounts laid over it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Weak};

use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::data::Way;
use super::page::Page;
use super::{Settings, network};
use crate::error::{Error, Kind, Result};
use crate::hub::Caller;
use crate::net::rate::{Bucket, Rates};
use crate::units::ByteSize;

/// One of `[ftp] accounts`: what differs for some accounts. A later rule counts more than an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountSettings {
    /// Names of users and devices, `group:NAME`, or `*` for everyone.
    pub names: Vec<String>,
    /// Let these ask for connections to themselves.
    pub active: Option<bool>,
    /// Refuse these without TLS, or let them in although others need it.
    pub require_tls: Option<bool>,
    /// Networks from which these may go without TLS although it is required.
    pub plain_from: Option<Vec<String>>,
    /// Code page of their names.
    pub encoding: Option<String>,
    /// Bytes a second that all uploads of one of these accounts share; 0: no limit.
    pub upload_rate: Option<ByteSize>,
    /// Bytes a second that all downloads of one of these accounts share; 0: no limit.
    pub download_rate: Option<ByteSize>,
}

/// A rule, read.
#[derive(Debug)]
struct Rule {
    settings: AccountSettings,
    plain_from: Option<Vec<IpNet>>,
    page: Option<Option<Page>>,
}

/// All rules of one listener.
#[derive(Debug)]
pub(super) struct Policies {
    base: Arc<Policy>,
    rules: Vec<Rule>,
}

/// What holds for one session.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    pub(super) active: bool,
    require_tls: bool,
    plain_from: Vec<IpNet>,
    /// Names are written in this code page, unless the client asks for UTF-8.
    pub(super) page: Option<Page>,
    upload: Vec<Arc<Bucket>>,
    download: Vec<Arc<Bucket>>,
}

/// The buckets of accounts with a transfer limit, shared by all their sessions at all listeners.
static BUCKETS: LazyLock<Mutex<Buckets>> = LazyLock::new(Mutex::default);

/// By account, and whether its uploads (else its downloads) draw from it.
type Buckets = HashMap<(String, bool), Weak<Bucket>>;

impl Policies {
    /// # Errors
    /// `Invalid`, naming the key.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let listener = |rate: ByteSize| if rate.0 == 0 { Vec::new() } else { vec![Bucket::new(rate.0)] };
        let base = Policy {
            active: settings.active,
            require_tls: settings.require_tls,
            plain_from: networks("plain_from", &settings.plain_from)?,
            page: page("encoding", &settings.encoding)?,
            upload: listener(settings.upload_rate),
            download: listener(settings.download_rate),
        };
        let rules = settings.accounts.iter().enumerate().map(|(number, rule)| Rule::new(number, rule));
        Ok(Self { base: Arc::new(base), rules: rules.collect::<Result<_>>()? })
    }

    /// What holds for whoever is not known yet.
    pub(super) fn base(&self) -> Arc<Policy> {
        Arc::clone(&self.base)
    }

    /// What holds for a name that nobody proved yet: groups are not looked up.
    pub(super) fn of_name(&self, name: &str) -> Arc<Policy> {
        let name = name.to_ascii_lowercase();
        self.of(|wanted| wanted == name, None)
    }

    /// What holds for someone signed in.
    pub(super) fn of_caller(&self, caller: &Caller) -> Arc<Policy> {
        let Some(account) = caller.account() else { return self.of_name("anonymous") };
        let meant = |wanted: &str| match wanted.split_once(':') {
            Some(("group", group)) => account.groups.iter().any(|name| name == group),
            Some(_) => account.principal() == wanted,
            None => account.name == wanted,
        };
        self.of(meant, Some(&account.name))
    }

    fn of(&self, meant: impl Fn(&str) -> bool, account: Option<&str>) -> Arc<Policy> {
        let mut policy = Arc::clone(&self.base);
        let (mut up, mut down) = (0, 0);
        for rule in &self.rules {
            let settings = &rule.settings;
            if !settings.names.iter().any(|name| name == "*" || meant(name)) {
                continue;
            }
            let changed = Arc::make_mut(&mut policy);
            changed.active = settings.active.unwrap_or(changed.active);
            changed.require_tls = settings.require_tls.unwrap_or(changed.require_tls);
            changed.plain_from = rule.plain_from.clone().unwrap_or_else(|| std::mem::take(&mut changed.plain_from));
            changed.page = rule.page.unwrap_or(changed.page);
            up = settings.upload_rate.map_or(up, |rate| rate.0);
            down = settings.download_rate.map_or(down, |rate| rate.0);
        }
        if let Some(account) = account.filter(|_| up > 0 || down > 0) {
            let changed = Arc::make_mut(&mut policy);
            changed.upload.extend((up > 0).then(|| bucket(account, true, up)));
            changed.download.extend((down > 0).then(|| bucket(account, false, down)));
        }
        policy
    }
}

impl Rule {
    fn new(number: usize, settings: &AccountSettings) -> Result<Self> {
        let key = |name: &str| format!("accounts[{number}].{name}");
        if settings.names.is_empty() {
            let words = format!("[ftp] {}: names nobody; write a user, a device, group:NAME or *", key("names"));
            return Err(Error::new(Kind::Invalid, words));
        }
        let plain_from = settings.plain_from.as_ref().map(|list| networks(&key("plain_from"), list)).transpose()?;
        let page = settings.encoding.as_ref().map(|label| page(&key("encoding"), label)).transpose()?;
        Ok(Self { settings: settings.clone(), plain_from, page })
    }
}

impl Policy {
    /// May this peer go without TLS?
    pub(super) fn plain_is_fine(&self, peer: IpAddr) -> bool {
        !self.require_tls || self.plain_from.iter().any(|network| network.contains(&peer.to_canonical()))
    }

    /// What a transfer is drawn from.
    pub(super) fn rates(&self, way: Way) -> Rates {
        Rates(match way {
            Way::In => self.upload.clone(),
            Way::Out => self.download.clone(),
        })
    }
}

/// The bucket of an account, at the rate that holds now.
fn bucket(account: &str, upload: bool, rate: u64) -> Arc<Bucket> {
    let mut buckets = BUCKETS.lock();
    let key = (account.to_owned(), upload);
    if let Some(bucket) = buckets.get(&key).and_then(Weak::upgrade) {
        bucket.change(rate);
        return bucket;
    }
    buckets.retain(|_, bucket| bucket.strong_count() > 0);
    let bucket = Bucket::new(rate);
    buckets.insert(key, Arc::downgrade(&bucket));
    bucket
}

fn networks(key: &str, list: &[String]) -> Result<Vec<IpNet>> {
    list.iter().map(|text| network(key, text)).collect()
}

fn page(key: &str, label: &str) -> Result<Option<Page>> {
    Page::parse(label).map_err(|words| Error::new(Kind::Invalid, format!("[ftp] {key}: {words}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(rules: &str) -> Policies {
        Policies::new(&toml::from_str(rules).unwrap()).unwrap()
    }

    #[test]
    fn a_rule_changes_what_it_says_and_a_later_one_counts_more() {
        let policies = policies(
            r#"require_tls = true
            accounts = [
                { names = ["*"], active = true },
                { names = ["camera-3"], require_tls = false, encoding = "cp1252", active = false },
            ]"#,
        );
        let peer = IpAddr::from([192, 0, 2, 1]);
        let (anyone, camera) = (policies.of_name("alice"), policies.of_name("Camera-3"));
        assert!(anyone.active && !anyone.plain_is_fine(peer) && anyone.page.is_none());
        assert!(!camera.active && camera.plain_is_fine(peer) && camera.page.is_some());
        assert!(!policies.base().active);
    }

    #[test]
    fn the_sessions_of_an_account_share_one_bucket() {
        let first = bucket("shared-bucket-test", true, 1_000);
        let second = bucket("shared-bucket-test", true, 2 << 20);
        assert!(Arc::ptr_eq(&first, &second) && first.step() > 100_000, "the newest rate counts");
        assert!(!Arc::ptr_eq(&first, &bucket("shared-bucket-test", false, 1_000)));
    }

    #[test]
    fn a_wrong_rule_is_named() {
        for (rules, wanted) in [
            ("accounts = [{ active = true }]", "accounts[0].names"),
            ("accounts = [{ names = [\"a\"], encoding = \"x\" }]", "accounts[0].encoding: `x`"),
            ("accounts = [{ names = [\"a\"], plain_from = [\"x\"] }]", "accounts[0].plain_from: `x`"),
        ] {
            let error = Policies::new(&toml::from_str(rules).unwrap()).unwrap_err();
            assert!(error.public().contains(wanted), "{error}");
        }
    }
}
