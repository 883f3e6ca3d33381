//! Who a recipient is: a drop address, a mailbox, or nobody; and whether there is room for what comes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::name::plain_name;
use super::{Recipient, Target};
use crate::error::{Error, Kind, Result};
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::transfer::full;
use crate::hub::view::{Space, View};
use crate::hub::{Caller, Hub};
use crate::origin::Origin;
use crate::store::AccountKind;
use crate::units::ByteSize;

/// Of a message, the least part its attachments can be once base64 is undone, in percent: less than this is refused
/// before it is sent, anything else is decided exactly at the commit.
const DECODED_AT_LEAST: u64 = 70;

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
    /// `OverQuota` (may fit later), `TooLarge` (a message of this size never fits), `Unavailable` (disk full).
    pub async fn recipient(
        &self,
        caller: &Caller,
        local: &str,
        domain: &str,
        catch_all: Option<&str>,
        size: Option<u64>,
    ) -> Result<Recipient> {
        if !(domain.is_empty() || self.serves_domain(domain) || is_our_address(domain, caller.origin())) {
            return Err(relaying(domain));
        }
        let view = self.view();
        let target = find(&view, local, catch_all).ok_or_else(|| nobody(local, domain))?;
        let folder = target.folder()?;
        if let Target::Drop { .. } = &target {
            caller.allow(Verb::Create, &folder).map_err(|error| explained(&error, local))?;
        }
        let Some((space, _)) = view.space_of(&folder) else {
            return Err(nobody(local, domain));
        };
        let least = match target {
            Target::Drop { .. } => size.map(|size| size / 100 * DECODED_AT_LEAST),
            Target::Mailbox { .. } => size,
        };
        self.room_for(space, view.settings.storage.keep_free.0, least).await?;
        let address = if domain.is_empty() { local.to_owned() } else { format!("{local}@{domain}") };
        Ok(Recipient { address, target })
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
                return Err(Error::new(Kind::OverQuota, full(space)));
            }
        }
        if self.inner.mail.rooms.free(space).await? < keep_free.saturating_add(size) {
            return Err(Error::new(Kind::Unavailable, "the server's disk is full; try again later"));
        }
        Ok(())
    }
}

/// Exact drop address, `drop+sub`, user, `user+tag`, postmaster, catch-all. Without regard to case.
fn find(view: &View, local: &str, catch_all: Option<&str>) -> Option<Target> {
    let name = local.to_lowercase();
    let (base, sub) = match local.split_once('+') {
        Some((base, sub)) => (base.to_lowercase(), Some(sub)),
        None => (name.clone(), None),
    };
    let catch_all = || catch_all.filter(|account| !account.is_empty()).and_then(|account| mailbox(view, account));
    drop_address(view, &name, None)
        .or_else(|| drop_address(view, &base, sub))
        .or_else(|| mailbox(view, &name))
        .or_else(|| mailbox(view, &base))
        .or_else(|| if base == "postmaster" { postmaster(view) } else { None })
        .or_else(catch_all)
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

fn mailbox(view: &View, name: &str) -> Option<Target> {
    let name = name.to_lowercase();
    let account = view.accounts.get(&name).filter(|account| account.kind == AccountKind::User && !account.disabled)?;
    let folder = TreePath::parse(&format!("/mail/{}", account.name)).ok()?;
    view.space(&folder.to_string())?;
    Some(Target::Mailbox { account: account.name.clone() })
}

/// RFC 5321 §4.5.1: there is always somebody to write to, as long as there is anybody.
fn postmaster(view: &View) -> Option<Target> {
    let mut admins: Vec<_> =
        view.accounts.values().filter(|account| account.admin).map(|account| &account.name).collect();
    admins.sort();
    admins.into_iter().find_map(|name| mailbox(view, name))
}

/// RFC 5321 §4.1.3: `user@[our address]` is us.
fn is_our_address(domain: &str, origin: &Origin) -> bool {
    let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or_default();
    let address = literal.strip_prefix("ipv6:").unwrap_or(literal);
    address.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical() == origin.local.ip().to_canonical())
}

fn relaying(domain: &str) -> Error {
    Error::new(Kind::Denied, format!("mail for {domain} is not taken here: this server does not relay"))
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
