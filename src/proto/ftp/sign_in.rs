//! Signing in: AUTH, USER, PASS.

use std::time::Instant;

use super::command::Mechanism;
use super::reply::Reply;
use super::session::{Session, Turn, Who, say};
use crate::error::{Error, Kind};
use crate::hub::TreePath;

/// Told to who would sign in, or move data, in the clear.
const NEEDS_TLS: &str = "sign-in needs TLS here: send AUTH TLS first, or use FTPS in your client";

impl Session {
    pub(super) fn auth(&mut self, mechanism: Mechanism) -> Turn {
        match (mechanism, &self.tls) {
            (Mechanism::Unknown, _) => say(504, "only AUTH TLS is known"),
            (_, None) => say(502, "TLS is not offered on this port"),
            (_, Some(_)) if self.origin.secure => say(503, "TLS is on already"),
            (_, Some(_)) => {
                self.protected |= mechanism == Mechanism::TlsWithData;
                Turn::Secure(Reply::new(234, "go ahead with TLS"))
            }
        }
    }

    pub(super) fn user(&mut self, name: String) -> Turn {
        self.forget();
        if !self.may_be_plain(&self.door.policies.of_name(&name)) {
            return say(530, NEEDS_TLS);
        }
        self.who = Who::Named(name);
        // The same for everyone, so that names cannot be probed.
        say(331, "password please")
    }

    pub(super) async fn pass(&mut self, password: &[u8]) -> Turn {
        let name = match std::mem::replace(&mut self.who, Who::Nobody) {
            Who::Named(name) => name,
            signed @ Who::Signed(_) => {
                self.who = signed;
                return say(202, "signed in already");
            }
            Who::Nobody => return say(503, "USER first"),
        };
        let begun = Instant::now();
        let guest = matches!(name.to_ascii_lowercase().as_str(), "anonymous" | "ftp");
        let outcome = match guest && self.door.settings.anonymous {
            true => Ok(self.door.hub.guest(self.origin.clone())),
            false => self.door.hub.login(&self.origin, &name, password).await,
        };
        let allowed = outcome.and_then(|caller| {
            let policy = self.door.policies.of_caller(&caller);
            match self.may_be_plain(&policy) {
                true => Ok((caller, policy)),
                false => Err(Error::new(Kind::Denied, NEEDS_TLS)),
            }
        });
        let counted = allowed.and_then(|(caller, policy)| match caller.is_guest() {
            true => Ok((caller, policy)),
            false => self.permit.account(caller.name()).map(|()| (caller, policy)),
        });
        let reply = match counted {
            Ok((caller, policy)) => {
                self.cwd = caller.start();
                self.policy = policy;
                self.who = Who::Signed(caller);
                Reply::new(230, "signed in")
            }
            Err(error) => {
                self.wrong += 1;
                self.who = Who::Named(name);
                match error.kind() {
                    Kind::Throttled => Reply::new(421, error.public().to_owned()),
                    Kind::Full | Kind::Internal | Kind::Unavailable => Reply::from(&error),
                    Kind::Denied if error.public() == NEEDS_TLS => Reply::new(530, NEEDS_TLS),
                    _ => Reply::new(530, "name or password is wrong"),
                }
            }
        };
        let turn = self.noted("login", &TreePath::root(), 0, begun, reply.clone());
        if matches!(self.who, Who::Named(_)) {
            self.who = Who::Nobody;
            if reply.code() == 421 || self.wrong >= self.most_sign_ins {
                return Turn::Close(Some(reply));
            }
        }
        turn
    }
}
