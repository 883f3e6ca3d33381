//! The open-relay test a listener makes on itself: the forms by which servers were once made to pass mail on.
//!
//! Stoa has nothing that could send mail elsewhere; what is proved here is that no address of another domain is ever taken.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::command::Command;
use super::reply::Reply;
use super::session::Session;
use super::{Door, Role};
use crate::net::{Limits, Link, Permit, Stream};
use crate::origin::Origin;
use crate::proto::Examined;
use crate::proto::dialogue::{Dialogue, Turn};

/// A stranger (RFC 5737).
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Recipients of a domain that is surely not ours (RFC 2606); `{ours}` is.
const ABROAD: [&str; 8] = [
    "a@relay.invalid",
    "@{ours}:a@relay.invalid",
    "@{ours},@x.invalid:a@relay.invalid",
    "a@[192.0.2.25]",
    "a@{ours}.invalid",
    "a@sub.relay-test.{ours}",
    "\"a@{ours}\"@relay.invalid",
    "a%{ours}@relay.invalid",
];
/// Local parts that once meant: pass it on.
const AT_HOME: [&str; 4] =
    ["a%relay.invalid@{ours}", "relay.invalid!a@{ours}", "\"a@relay.invalid\"@{ours}", "a%relay.invalid"];
/// Nobody's name: where it is taken, everything at home is, literally.
const NOBODY: &str = "nobody-relay-test@{ours}";

/// Tries all of them on a listener opened like this.
pub(super) async fn examine(door: Arc<Door>) -> Examined {
    let role = door.settings.role;
    if role == Role::Catch {
        return Examined {
            tried: "takes every recipient into one box and passes nothing on".into(),
            worked: Vec::new(),
        };
    }
    let ours = door.hub.mail_name().unwrap_or_else(|| "localhost".into());
    let mut worked = Vec::new();
    let all_at_home = takes(&door, &NOBODY.replace("{ours}", &ours)).await;
    let at_home = AT_HOME.iter().filter(|_| !all_at_home);
    for form in ABROAD.iter().chain(at_home) {
        let recipient = form.replace("{ours}", &ours);
        if takes(&door, &recipient).await {
            worked.push(format!("takes mail for <{recipient}> from strangers"));
        }
    }
    let count = ABROAD.len() + AT_HOME.len();
    let postmaster = match door.hub.postmaster() {
        Some(name) => format!("mail to postmaster goes to {name}"),
        None => "mail to postmaster goes to the first administrator that is made".into(),
    };
    let tried = format!("role {}: {count} open-relay forms tried, {} taken; {postmaster}", role.word(), worked.len());
    Examined { tried, worked }
}

/// True unless the recipient is refused for good.
async fn takes(door: &Arc<Door>, recipient: &str) -> bool {
    let peer = door.networks.example().unwrap_or(STRANGER);
    let nowhere = SocketAddr::new(peer, 0);
    let mut origin = Origin::inside("smtp");
    (origin.peer, origin.secure) = (nowhere, false);
    let mut link = Link {
        stream: Stream::Closed,
        origin,
        stop: CancellationToken::new(),
        limits: Arc::new(Limits::default()),
        tls: None,
        permit: Permit::uncounted(),
        trusted: None,
    };
    let mut session = Session::new(Arc::clone(door), &mut link);
    let hello = if door.settings.lmtp { "LHLO" } else { "EHLO" };
    let lines =
        [format!("{hello} relay.invalid"), "MAIL FROM:<a@relay.invalid>".into(), format!("RCPT TO:<{recipient}>")];
    for line in lines {
        let Ok(command) = Command::parse(line.as_bytes()) else { return false };
        match session.answer(command).await {
            Turn::Say(reply) if taken(&reply) => {}
            _ => return false,
        }
    }
    true
}

/// What may be taken later counts as taken: without the store behind it, a listener under test has no room for anything.
fn taken(reply: &Reply) -> bool {
    reply.code() < 500
}
