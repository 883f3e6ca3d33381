//! Who may write a name on a message as its sender (RFC 6409 §6.1).

use super::{Rcpt, Target};
use crate::hub::{Caller, Hub};
use crate::store::AccountKind;

impl Hub {
    /// True when this caller may send as this address: an address of ours must lead to its own mailbox, and a device may call
    /// itself what its firmware likes. Other domains' addresses say nothing about us.
    pub async fn sends_as(&self, caller: &Caller, local: &str, domain: &str) -> bool {
        let ours = domain.is_empty() || self.serves_domain(domain);
        if !ours || is_device(caller) {
            return true;
        }
        match self.find(caller, &Rcpt { local, domain, sender: "", catch_all: None, size: None }).await {
            Ok(recipient) => {
                let own =
                    |target: &Target| matches!(target, Target::Mailbox { account, .. } if account == caller.name());
                recipient.targets.iter().any(own)
            }
            // No room for mail to oneself is no reason to be somebody else.
            Err(_) => local.eq_ignore_ascii_case(caller.name()),
        }
    }
}

fn is_device(caller: &Caller) -> bool {
    caller.account().is_some_and(|account| account.kind == AccountKind::Device)
}
