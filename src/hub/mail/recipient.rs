//! Who a recipient is: a drop address, a mailbox, or nobody; and whether there is room for what comes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::alias::Alias;
use super::name::plain_name;
use super::settings::Post;
use super::trace::{self, Refused};
use super::{Recipient, Target, maildir};
use crate::error::{Error, Kind, Result};
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::room::full;
use crate::hub::view::{Space, SpaceRole, View};
use crate::hub::{Caller, Hub};
use crate::origin::Origin;
use crate::store::{AccountKind, NodeKind};
use crate::units::ByteSize;

/// Of a message, the least part its attachments can be once base64 is undone, in percent: less than this is refused
/// before it is sent, anything else is decided exactly at the commit.
const DECODED_AT_LEAST: u64 = 70;

/// Aliases that lead to aliases at most.
const DEEPEST: usize = 10;
/// What begins a target that is a group.
pub(super) const GROUP: &str = "group:";

/// How long an answer about free room on a disk is good for.
const FRESH: Duration = Duration::from_secs(1);

/// Free bytes of each space's disk, asked for once in a while: a message to a thousand people asks a thousand times.
#[derive(Default)]
pub(super) struct Rooms {
    known: Mutex<HashMap<String, (Instant, u64)>>,
}

impl Rooms {
    async fn free(&self, space: &Space) -> Result<u64> {
        if let Some((asked, free)) = self.known.lock().get(&space.key)
            && asked.elapsed() < FRESH
        {
            return Ok(*free);
        }
        let free = space.volume.room().await?.free;
        let mut known = self.known.lock();
        known.retain(|_, (asked, _)| asked.elapsed() < FRESH);
        known.insert(space.key.clone(), (Instant::now(), free));
        Ok(free)
    }
}

/// One recipient as its sender names it (RFC 5321 §4.1.1.3), with what is known about the message.
#[derive(Clone, Copy, Debug)]
pub struct Rcpt<'a> {
    /// Local part, unquoted.
    pub local: &'a str,
    /// Domain; empty is ours.
    pub domain: &'a str,
    /// Envelope sender; empty for `<>`.
    pub sender: &'a str,
    /// Account that takes mail for unknown local parts.
    pub catch_all: Option<&'a str>,
    /// Declared size.
    pub size: Option<u64>,
}

impl Rcpt<'_> {
    fn address(&self) -> String {
        match self.domain {
            "" => self.local.to_owned(),
            domain => format!("{}@{domain}", self.local),
        }
    }
}

impl Hub {
    /// Our name in mail headers and greetings: the first domain served.
    #[must_use]
    pub fn mail_name(&self) -> Option<String> {
        self.view().settings.domains.first().cloned()
    }

    /// True when the domain is one of ours.
    #[must_use]
    pub fn serves_domain(&self, domain: &str) -> bool {
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_lowercase();
        self.view().settings.domains.iter().any(|ours| ours.to_lowercase() == domain)
    }

    /// The caller at an origin before any sign-in: the one device that is known by its network alone (it has networks,
    /// no password, and names this door), or a guest.
    #[must_use]
    pub fn recognise(&self, origin: &Origin) -> Caller {
        let view = self.view();
        let mut known = view.accounts.values().filter(|account| {
            account.kind == AccountKind::Device
                && !account.disabled
                && account.has_no_password()
                && !account.networks.is_empty()
                && account.protocols.iter().any(|door| door == origin.door)
                && account.may_come_from(origin.peer.ip())
        });
        // Two devices in one network cannot be told apart: then neither is taken for granted.
        match (known.next(), known.next()) {
            (Some(device), None) => Caller::new(self.clone(), origin.clone(), Some(device.clone())),
            _ => self.guest(origin.clone()),
        }
    }

    /// Says at RCPT whether mail from this caller to this address will be taken. An empty domain is ours.
    ///
    /// # Errors
    /// `NotFound` (nobody of that name), `Denied` or `Unauthenticated` (not for this caller, or not our domain),
    /// `OverQuota` (may fit later), `TooLarge` (a message of this size never fits), `Full` (no room on the disk).
    pub async fn recipient(&self, caller: &Caller, rcpt: &Rcpt<'_>) -> Result<Recipient> {
        let outcome = self.find(caller, rcpt).await;
        if let Err(error) = &outcome {
            let message = uuid::Uuid::now_v7().simple().to_string();
            let (sender, recipient, bytes) = (rcpt.sender, rcpt.address(), rcpt.size.unwrap_or(0));
            let one =
                Refused { message: &message, place: 0, sender, recipient: &recipient, target: String::new(), bytes };
            trace::refused(caller, &[one], error);
        }
        outcome
    }

    /// The verdict alone; nobody is refused anything by it.
    pub(super) async fn find(&self, caller: &Caller, rcpt: &Rcpt<'_>) -> Result<Recipient> {
        let Rcpt { local, domain, catch_all, .. } = *rcpt;
        if !(domain.is_empty() || self.serves_domain(domain) || is_our_address(domain, caller.origin())) {
            return Err(relaying(domain));
        }
        let view = self.view();
        let mut search = Search { view: &view, caller, found: Vec::new(), within: Vec::new(), followed: Vec::new() };
        let domain_asked = domain.strip_suffix('.').unwrap_or(domain).to_lowercase();
        if !search.follow(local, &domain_asked)?
            && !search.follow_alias(view.aliases.wild(&local.to_lowercase(), &domain_asked))?
        {
            let catch_all = catch_all.filter(|account| !account.is_empty());
            search.found.extend(catch_all.and_then(|account| mailbox(&view, account, None)));
        }
        let mut targets = std::mem::take(&mut search.found);
        for target in &mut targets {
            self.settle_folder(&view, target).await?;
            self.take(&view, caller, target, rcpt).await?;
        }
        if targets.is_empty() {
            return Err(closed(&view, local, domain).unwrap_or_else(|| nobody(local, domain)));
        }
        let by_way_of = search.followed.iter().map(|alias| (*alias).to_owned()).collect();
        Ok(Recipient { address: rcpt.address(), by_way_of, targets, place: 0 })
    }

    /// `bob+lists` goes into Bob's folder of that name where he has one, else into his inbox.
    async fn settle_folder(&self, view: &View, target: &mut Target) -> Result<()> {
        let Target::Mailbox { account, folder } = target else { return Ok(()) };
        if folder.is_empty() {
            return Ok(());
        }
        let Some(space) = view.space(&format!("/mail/{account}")) else { return Ok(()) };
        for name in [folder.clone(), folder.to_lowercase()] {
            match space.volume.stat(&maildir::folder_path(&name)?.join(maildir::CUR)?).await {
                Ok(node) if node.kind == NodeKind::Folder => {
                    *folder = name;
                    return Ok(());
                }
                Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::WrongType) => return Err(error),
                _ => {}
            }
        }
        folder.clear();
        Ok(())
    }

    /// Who takes the mail of postmaster, where no address of that name is made.
    #[must_use]
    pub fn postmaster(&self) -> Option<String> {
        match postmaster(&self.view())? {
            Target::Mailbox { account, .. } => Some(account),
            Target::Drop { .. } => None,
        }
    }

    /// The verdict on one target: the right to write there, and room for what comes.
    async fn take(&self, view: &View, caller: &Caller, target: &Target, rcpt: &Rcpt<'_>) -> Result<()> {
        let Rcpt { local, sender, size, .. } = *rcpt;
        let folder = target.folder()?;
        let Some((space, _)) = view.space_of(&folder) else {
            return Err(nobody(local, ""));
        };
        let least = match target {
            Target::Drop { .. } => {
                caller.allow(Verb::Create, &folder).map_err(|error| explained(&error, local))?;
                space.drop_rules.greet(caller, sender, local, size)?;
                size.map(|size| size / 100 * DECODED_AT_LEAST)
            }
            Target::Mailbox { .. } if space.role != SpaceRole::Mailbox => {
                return Err(Error::new(Kind::Unavailable, "this mailbox waits for its administrator; try again later"));
            }
            Target::Mailbox { .. } => size,
        };
        self.room_for(space, view.settings.storage.keep_free.0, least).await
    }

    /// Room under the quota and on the disk for at least this many bytes.
    async fn room_for(&self, space: &Arc<Space>, keep_free: u64, size: Option<u64>) -> Result<()> {
        let size = size.unwrap_or(0);
        if let Some(most) = space.max_bytes
            && size > most
        {
            return Err(Error::new(Kind::TooLarge, format!("larger than all of {} may hold", ByteSize(most))));
        }
        if space.max_bytes.is_some() || space.max_files.is_some() {
            let used = self.catalog().usage(&space.key).await?;
            let bytes_full = space.max_bytes.is_some_and(|most| used.bytes.saturating_add(size.max(1)) > most);
            if bytes_full || space.max_files.is_some_and(|most| used.files >= most) {
                return Err(Error::new(Kind::OverQuota, full(space, used)));
            }
        }
        if self.inner.mail.rooms.free(space).await? < keep_free.saturating_add(size) {
            return Err(Error::new(Kind::Full, "the server's disk is full; try again later"));
        }
        Ok(())
    }
}

/// Everything one address leads to.
struct Search<'a> {
    view: &'a View,
    caller: &'a Caller,
    found: Vec<Target>,
    /// Aliases being followed: one that comes back to itself means the user of that name.
    within: Vec<&'a str>,
    /// All that were followed.
    followed: Vec<&'a str>,
}

impl<'a> Search<'a> {
    /// Follows an address: drop address, alias, user, `name+tag`, postmaster. Without regard to case. False: nobody.
    fn follow(&mut self, local: &str, domain: &str) -> Result<bool> {
        let name = local.to_lowercase();
        if let Some(target) = drop_address(self.view, &name, None) {
            return Ok(self.add(target));
        }
        if self.follow_alias(self.view.aliases.exact(&name, domain))? {
            return Ok(true);
        }
        if let Some(target) = mailbox(self.view, &name, None) {
            return Ok(self.add(target));
        }
        let delimiter = self.view.settings.mail.delimiter.as_str();
        if let Some((base, tag)) = local.split_once(|letter| delimiter.contains(letter)) {
            let base = base.to_lowercase();
            if let Some(target) = drop_address(self.view, &base, Some(tag)) {
                return Ok(self.add(target));
            }
            if self.follow_alias(self.view.aliases.exact(&base, domain))? {
                return Ok(true);
            }
            if let Some(target) = mailbox(self.view, &base, Some(tag)) {
                return Ok(self.add(target));
            }
        }
        match postmaster(self.view).filter(|_| name == "postmaster") {
            Some(target) => Ok(self.add(target)),
            None => Ok(false),
        }
    }

    fn add(&mut self, target: Target) -> bool {
        if !self.found.contains(&target) {
            self.found.push(target);
        }
        true
    }

    /// Follows an alias, unless it is being followed already.
    fn follow_alias(&mut self, alias: Option<&'a Alias>) -> Result<bool> {
        let Some(alias) = alias.filter(|alias| !self.within.contains(&alias.address.as_str())) else {
            return Ok(false);
        };
        if self.within.len() >= DEEPEST {
            tracing::error!(alias = alias.address, "aliases lead to aliases more than {DEEPEST} deep");
            return Err(Error::new(Kind::Unavailable, "this address leads in circles; its owner must mend that"));
        }
        self.within.push(&alias.address);
        self.followed.push(&alias.address);
        let before = std::mem::take(&mut self.found);
        let outcome = alias.to.iter().try_for_each(|target| self.follow_target(alias, target));
        self.within.pop();
        let own = std::mem::replace(&mut self.found, before);
        outcome?;
        self.may_post(alias, &own)?;
        for target in own {
            self.add(target);
        }
        if self.found.len() > self.view.settings.mail.targets {
            tracing::error!(alias = alias.address, "an alias leads to more than [mail] targets allows");
            return Err(Error::new(Kind::Unavailable, "this address leads to too many; its owner must mend that"));
        }
        Ok(true)
    }

    fn follow_target(&mut self, alias: &Alias, target: &str) -> Result<()> {
        if let Some(group) = target.strip_prefix(GROUP) {
            for name in members(self.view, group) {
                if let Some(target) = mailbox(self.view, name, None) {
                    self.add(target);
                }
            }
            return Ok(());
        }
        let (local, domain) = target.rsplit_once('@').unwrap_or((target, ""));
        if !self.follow(local, &domain.to_lowercase())? {
            tracing::warn!(alias = alias.address, target, "an alias leads to somebody who is not there");
        }
        Ok(())
    }

    /// Only those it is meant for may write to it.
    fn may_post(&self, alias: &Alias, own: &[Target]) -> Result<()> {
        let name = self.caller.name();
        let member = || {
            let in_group =
                |group: &str| self.caller.account().is_some_and(|one| one.groups.iter().any(|own| own == group));
            own.iter().any(|target| matches!(target, Target::Mailbox { account, .. } if account == name))
                || alias.to.iter().filter_map(|target| target.strip_prefix(GROUP)).any(in_group)
        };
        let (may, who) = match alias.post {
            Post::Anyone => (true, ""),
            Post::Users => (!self.caller.is_guest(), "users of this server"),
            Post::Members => (!self.caller.is_guest() && member(), "its members"),
        };
        match may {
            true => Ok(()),
            false => Err(Error::new(Kind::Denied, format!("only {who} may write to {}: sign in first", alias.address))),
        }
    }
}

/// Users of a group, by name.
fn members<'a>(view: &'a View, group: &str) -> Vec<&'a str> {
    let in_group = |account: &&std::sync::Arc<crate::hub::Account>| account.groups.iter().any(|one| one == group);
    let mut names: Vec<&str> = view.accounts.values().filter(in_group).map(|account| account.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// Is there anybody or anything of this name an alias can lead to?
pub(crate) fn leads_somewhere(view: &View, target: &str) -> bool {
    if let Some(group) = target.to_lowercase().strip_prefix(GROUP) {
        return view.groups.iter().any(|one| one == group);
    }
    let target = target.to_lowercase();
    let (local, domain) = target.rsplit_once('@').unwrap_or((&target, ""));
    let known = |name: &str| {
        drop_address(view, name, None).is_some()
            || view.aliases.exact(name, domain).is_some()
            || mailbox(view, name, None).is_some()
    };
    let base = local.split_once(|letter| view.settings.mail.delimiter.contains(letter)).map(|(base, _)| base);
    known(local) || base.is_some_and(known)
}

fn drop_address(view: &View, name: &str, sub: Option<&str>) -> Option<Target> {
    let space = view.spaces.iter().find(|space| {
        space.address.as_deref().is_some_and(|address| !address.is_empty() && address.to_lowercase() == name)
    })?;
    let folder = match sub.and_then(plain_name) {
        Some(sub) => space.path.join(&sub).ok()?,
        None => space.path.clone(),
    };
    Some(Target::Drop { folder })
}

fn mailbox(view: &View, name: &str, tag: Option<&str>) -> Option<Target> {
    let name = name.to_lowercase();
    let account = view.accounts.get(&name).filter(|account| account.kind == AccountKind::User && !account.disabled)?;
    let folder = TreePath::parse(&format!("/mail/{}", account.name)).ok()?;
    // Whoever is confined to a folder could never read it.
    view.space(&folder.to_string()).filter(|_| folder.is_in(&account.root))?;
    let folder = tag.map(|tag| format!(".{tag}")).filter(|folder| maildir::is_folder(folder)).unwrap_or_default();
    Some(Target::Mailbox { account: account.name.clone(), folder })
}

/// RFC 5321 §4.5.1: there is always somebody to write to, as long as there is anybody. Administrators first, then by name.
fn postmaster(view: &View) -> Option<Target> {
    let mut all: Vec<_> = view.accounts.values().map(|account| (!account.admin, &account.name)).collect();
    all.sort();
    all.into_iter().find_map(|(_, name)| mailbox(view, name, None))
}

/// RFC 5321 §4.1.3: `user@[our address]` is us.
fn is_our_address(domain: &str, origin: &Origin) -> bool {
    let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or_default();
    let address = literal.strip_prefix("ipv6:").unwrap_or(literal);
    address.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical() == origin.local.ip().to_canonical())
}

/// Somebody of that name who takes no mail, and why.
fn closed(view: &View, local: &str, domain: &str) -> Option<Error> {
    let account = view.accounts.get(&local.to_lowercase()).filter(|account| account.kind == AccountKind::User)?;
    let at = if domain.is_empty() { "" } else { "@" };
    let why = match account.disabled {
        true => "the account is disabled",
        false => "the account has no mailbox",
    };
    Some(Error::new(Kind::NotFound, format!("{local}{at}{domain} takes no mail: {why}")))
}

fn relaying(domain: &str) -> Error {
    let says = format!("mail for {domain} is not taken here: this server does not relay");
    // A name without a dot is what a machine calls itself.
    let hint = match domain.contains(['.', '[']) {
        true => "",
        false => "; if that is this server, add the name to `domain` in its configuration",
    };
    Error::new(Kind::Denied, says + hint)
}

fn nobody(local: &str, domain: &str) -> Error {
    // `user%host@us`, `host!user@us` and `"user@host"@us` once meant: pass it on.
    if local.contains(['%', '!', '@']) {
        return Error::new(Kind::Denied, "mail is not passed on from here: this server does not relay");
    }
    let at = if domain.is_empty() { "" } else { "@" };
    Error::new(Kind::NotFound, format!("there is no {local}{at}{domain} here"))
}

/// A drop address is no secret: say what is missing, not that it does not exist.
fn explained(error: &Error, local: &str) -> Error {
    match error.kind() {
        Kind::Denied | Kind::NotFound | Kind::Unauthenticated => Error::new(
            Kind::Denied,
            format!("{local} does not take files from you: sign in, or ask for the right to create files there"),
        ),
        kind => Error::new(kind, error.public().to_owned()),
    }
}
