//! AUTH (RFC 4954): who may prove themselves where, and what becomes of it.

use std::time::Instant;

use super::Role;
use super::reply::{Phase, Reply};
use super::session::{Session, State, log_fault};
use crate::proto::dialogue::Turn;
use crate::proto::sasl::{Exchange, Fault, Mechanism, Step};

impl Session {
    /// Passwords are asked for only where nobody can read them, unless the operator said otherwise.
    pub(super) fn offers_auth(&self) -> bool {
        match self.door.settings.role {
            Role::Mx => false,
            // Its networks are trusted, and many machines know nothing better.
            Role::Device | Role::Catch => true,
            Role::General | Role::Submission => self.origin.secure || self.door.settings.auth_in_clear,
        }
    }

    pub(super) async fn authenticate(&mut self, mechanism: Option<Mechanism>, initial: Option<&[u8]>) -> Turn<Reply> {
        if self.door.settings.role == Role::Mx {
            self.trouble = Some("it wants to sign in on a port for other mail servers (role = \"mx\"): give it the port of a submission or device listener".into());
            return Turn::Say(Reply::new(502, "5.5.1", "nobody signs in on this port"));
        }
        if !self.offers_auth() {
            self.trouble = Some("it sends its password without TLS: switch TLS (STARTTLS, or SSL on the TLS port) on in the machine, or set auth_in_clear for a listener of its network".into());
            return Turn::Say(Reply::new(538, "5.7.11", "a password needs TLS: use STARTTLS first, or the TLS port"));
        }
        if self.caller.account().is_some_and(|account| !account.has_no_password()) {
            return Turn::Say(Reply::new(503, "5.5.1", "you are signed in already"));
        }
        let Some(mechanism) = mechanism else {
            self.trouble = Some(
                "it can only sign in by a mechanism this server does not do: set it to PLAIN or LOGIN, with TLS".into(),
            );
            return Turn::Say(Reply::new(504, "5.5.4", "the mechanisms are PLAIN and LOGIN"));
        };
        let (exchange, step) = Exchange::begin(mechanism, initial);
        self.step(exchange, step).await
    }

    pub(super) async fn step(&mut self, exchange: Exchange, step: Result<Step, Fault>) -> Turn<Reply> {
        self.state = State::Ready;
        match step {
            Ok(Step::Challenge(text)) => {
                self.state = State::Proving(exchange);
                Turn::Say(Reply::plain(334, text))
            }
            Ok(Step::Done(credentials)) => self.sign_in(&credentials.name, &credentials.password).await,
            Err(Fault::Cancelled) => Turn::Say(Reply::new(501, "5.7.0", "sign-in cancelled")),
            Err(Fault::Garbled) => Turn::Say(Reply::new(501, "5.5.2", "that is not base64 of what was asked for")),
            Err(Fault::OtherIdentity) => {
                Turn::Say(Reply::new(535, "5.7.8", "signing in on behalf of somebody else is not possible"))
            }
        }
    }

    async fn sign_in(&mut self, name: &str, password: &[u8]) -> Turn<Reply> {
        let since = Instant::now();
        if self.door.settings.role == Role::Catch {
            // A program under test is told what it wants to hear; it is nobody here all the same.
            return Turn::Say(Reply::new(235, "2.7.0", "signed in"));
        }
        let proved = self.door.hub.login(&self.origin, name, password).await;
        let outcome = proved.and_then(|caller| self.permit.account(caller.name()).map(|()| caller));
        let reply = match &outcome {
            Ok(_) => Reply::new(235, "2.7.0", "signed in"),
            Err(error) => Reply::refusal(Phase::Auth, error),
        };
        self.note("AUTH", name, 0, &reply, since);
        match outcome {
            Ok(caller) => (self.caller, self.trouble) = (caller, None),
            Err(error) => {
                self.trouble = Some(format!("its sign-in as `{name}` was refused: {}", error.public()).into());
                log_fault(&error);
                self.bad_sign_ins += 1;
                if self.bad_sign_ins >= self.most_sign_ins {
                    return Turn::Close(Some(Reply::new(421, "4.7.0", "too many failed sign-ins")));
                }
            }
        }
        Turn::Say(reply)
    }
}
