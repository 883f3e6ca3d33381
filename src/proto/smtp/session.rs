//! One SMTP conversation: what is legal when, and which one question the hub is asked.
//!
//! Never holds the wire, never relays, never says more about a recipient than whether mail for it is taken.

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::address::Address;
use super::command::{Command, LONGEST_ANSWER, Mail};
use super::letter::{Letter, Loop};
use super::reply::{Phase, Reply};
use super::trace::Trace;
use super::{Door, SignIn};
use crate::error::{Error, Kind, Result};
use crate::hub::{Caller, Envelope, Receipt, Recipient};
use crate::net::{Link, Permit};
use crate::origin::Origin;
use crate::proto::dialogue::{Bare, Dialogue, Event, Framing, Lane, Lines, Malformed, Turn, Why};
use crate::proto::sasl::{Exchange, Fault, Mechanism, Step};
use crate::telemetry::Access;

/// Unknown recipients answered at once; each one more waits longer, so that names cannot be guessed quickly.
const PATIENT_RECIPIENTS: u32 = 3;
/// Unknown recipients before the connection is closed.
const MOST_BAD_RECIPIENTS: u32 = 20;
/// What each unknown recipient beyond the patience adds to the wait.
const SLOWER: Duration = Duration::from_millis(100);
/// The longest such wait.
const SLOWEST: Duration = Duration::from_millis(500);
/// Failed sign-ins before the connection is closed.
const MOST_BAD_SIGN_INS: u32 = 5;
/// Bytes of a recipient list in an access line.
const LONGEST_LOGGED: usize = 256;

/// Where a conversation is.
enum State {
    /// Nobody said hello.
    Fresh,
    /// A SASL exchange waits for the client's next line.
    Proving(Exchange),
    /// Between messages.
    Ready,
    /// The content is on its way.
    Receiving(Box<Receiving>),
    /// MAIL was taken, and some recipients perhaps.
    Writing(Box<Writing>),
}

/// A message being addressed.
struct Writing {
    mail: Mail,
    recipients: Vec<Recipient>,
}

/// A message whose content comes.
struct Receiving {
    id: String,
    recipients: String,
    since: Instant,
}

/// What the peer said of itself.
#[derive(Default)]
struct Hello {
    name: String,
    extended: bool,
}

/// One conversation.
pub(super) struct Session {
    door: Arc<Door>,
    origin: Origin,
    /// STARTTLS can be done here.
    upgradable: bool,
    permit: Permit,
    caller: Caller,
    hello: Hello,
    state: State,
    bad_recipients: u32,
    bad_sign_ins: u32,
}

impl Session {
    /// Takes over the link's permit, to count the connection for the account that signs in.
    pub(super) fn new(door: Arc<Door>, link: &mut Link) -> Self {
        let origin = link.origin.clone();
        let caller = door.hub.recognise(&origin);
        Self {
            door,
            origin,
            upgradable: link.tls.is_some(),
            permit: std::mem::replace(&mut link.permit, Permit::uncounted()),
            caller,
            hello: Hello::default(),
            state: State::Fresh,
            bad_recipients: 0,
            bad_sign_ins: 0,
        }
    }

    fn offers_tls(&self) -> bool {
        self.upgradable && !self.origin.secure
    }

    /// Passwords are asked for only where nobody can read them, unless the operator said otherwise.
    fn offers_auth(&self) -> bool {
        self.door.settings.sign_in != SignIn::Never && (self.origin.secure || self.door.settings.auth_in_clear)
    }

    fn greet(&mut self, name: String, extended: bool) -> Reply {
        self.hello = Hello { name, extended };
        self.state = State::Ready;
        let host = self.door.host();
        if !extended {
            return Reply::plain(250, host);
        }
        let size = match self.door.settings.message_size.0 {
            0 => "SIZE".to_owned(),
            most => format!("SIZE {most}"),
        };
        let mut lines = vec![
            host.into(),
            "PIPELINING".into(),
            size.into(),
            "8BITMIME".into(),
            "SMTPUTF8".into(),
            "ENHANCEDSTATUSCODES".into(),
        ];
        if self.offers_tls() {
            lines.push("STARTTLS".into());
        }
        if self.offers_auth() {
            lines.push("AUTH PLAIN LOGIN".into());
        }
        lines.push("HELP".into());
        Reply::lines(250, lines)
    }

    fn begin(&mut self, mail: Mail) -> Reply {
        let most = self.door.settings.message_size.0;
        if self.door.settings.sign_in == SignIn::Required && self.caller.is_guest() {
            return Reply::new(530, "5.7.0", "sign in first");
        }
        if most > 0 && mail.size.is_some_and(|size| size > most) {
            return Reply::new(552, "5.3.4", format!("the largest message taken here has {most} bytes"));
        }
        if !mail.utf8 && mail.sender.as_ref().is_some_and(Address::is_international) {
            return Reply::new(553, "5.6.7", "an address beyond ASCII needs SMTPUTF8");
        }
        self.state = State::Writing(Box::new(Writing { mail, recipients: Vec::new() }));
        Reply::new(250, "2.1.0", "sender ok")
    }

    async fn add(&mut self, address: Address) -> Turn<Reply> {
        let State::Writing(writing) = &mut self.state else { return Turn::Say(out_of_order("MAIL first")) };
        if !writing.mail.utf8 && address.is_international() {
            return Turn::Say(Reply::new(553, "5.6.7", "an address beyond ASCII needs SMTPUTF8"));
        }
        if writing.recipients.len() >= self.door.settings.recipients {
            return Turn::Say(Reply::new(452, "4.5.3", "enough recipients; send the rest in another message"));
        }
        let since = Instant::now();
        let catch_all = Some(self.door.settings.catch_all.as_str());
        let asked =
            self.door.hub.recipient(&self.caller, &address.local, &address.domain, catch_all, writing.mail.size);
        match asked.await {
            Ok(recipient) => {
                writing.recipients.push(recipient);
                Turn::Say(Reply::new(250, "2.1.5", "recipient ok"))
            }
            Err(error) => self.refuse_recipient(&address, &error, since).await,
        }
    }

    async fn refuse_recipient(&mut self, address: &Address, error: &Error, since: Instant) -> Turn<Reply> {
        let reply = Reply::refusal(Phase::Recipient, error);
        self.note("RCPT", &address.to_string(), 0, &reply, since);
        log_fault(error);
        if reply.code() < 500 {
            return Turn::Say(reply);
        }
        self.bad_recipients += 1;
        if self.bad_recipients >= MOST_BAD_RECIPIENTS {
            return Turn::Close(Some(Reply::new(421, "4.7.0", "too many recipients that are not here")));
        }
        let beyond = self.bad_recipients.saturating_sub(PATIENT_RECIPIENTS);
        tokio::time::sleep((SLOWER * beyond).min(SLOWEST)).await;
        Turn::Say(reply)
    }

    async fn take(&mut self, writing: Writing) -> Turn<Reply> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let recipients = listed(&writing.recipients);
        let sender = writing.mail.sender.as_ref().map(ToString::to_string).unwrap_or_default();
        let trace = self.trace(&id, &sender, &writing);
        let size = writing.mail.size;
        let envelope = Envelope { id: id.clone(), sender, recipients: writing.recipients, size };
        let since = Instant::now();
        let most = self.door.settings.message_size;
        match self.open(envelope, trace).await {
            Ok(letter) => {
                self.state = State::Receiving(Box::new(Receiving { id, recipients, since }));
                Turn::Take {
                    prompt: Some(Reply::plain(354, "go ahead; end with a line that holds one dot")),
                    intake: Box::new(letter),
                    framing: Framing::Dots { swallow: swallowed(most.0), bare: Bare::Normalize },
                    lane: Lane::Inline,
                }
            }
            Err(error) => {
                let reply = Reply::refusal(Phase::Data, &error);
                self.note("DATA", &recipients, 0, &reply, since);
                log_fault(&error);
                Turn::Say(reply)
            }
        }
    }

    async fn open(&self, envelope: Envelope, trace: Bytes) -> Result<Letter> {
        let mut upload = self.caller.deliver(envelope).await?;
        upload.push(trace).await?;
        Ok(Letter::new(upload, self.door.settings.message_size))
    }

    fn trace(&self, id: &str, sender: &str, writing: &Writing) -> Bytes {
        let only_recipient = match writing.recipients.as_slice() {
            [only] => Some(only.address.as_str()),
            _ => None,
        };
        let trace = Trace {
            origin: &self.origin,
            hello: &self.hello.name,
            extended: self.hello.extended,
            utf8: writing.mail.utf8,
            signed_in: !self.caller.is_guest(),
            host: &self.door.host(),
            id,
            sender,
            only_recipient,
        };
        trace.lines()
    }

    fn received(&mut self, outcome: &Result<Receipt>) -> Reply {
        let State::Receiving(receiving) = std::mem::replace(&mut self.state, State::Ready) else {
            return Reply::new(451, "4.3.0", "no message was expected");
        };
        let (bytes, reply) = match outcome {
            Ok(receipt) => (receipt.bytes, Reply::new(250, "2.0.0", format!("Ok: queued as {}", receiving.id))),
            Err(error) if error.source().is_some_and(<dyn std::error::Error>::is::<Loop>) => {
                (0, Reply::new(554, "5.4.6", error.public().to_owned()))
            }
            Err(error) => {
                log_fault(error);
                (0, Reply::refusal(Phase::Data, error))
            }
        };
        self.note("DATA", &receiving.recipients, bytes, &reply, receiving.since);
        reply
    }

    fn start_tls(&mut self) -> Turn<Reply> {
        if self.origin.secure {
            return Turn::Say(Reply::new(503, "5.5.1", "TLS is up already"));
        }
        if !self.upgradable {
            return Turn::Say(Reply::new(502, "5.5.1", "this port offers no TLS"));
        }
        Turn::Secure(Reply::new(220, "2.0.0", "ready for TLS"))
    }

    async fn authenticate(&mut self, mechanism: Option<Mechanism>, initial: Option<&[u8]>) -> Turn<Reply> {
        if self.door.settings.sign_in == SignIn::Never {
            return Turn::Say(Reply::new(502, "5.5.1", "nobody signs in on this port"));
        }
        if !self.offers_auth() {
            return Turn::Say(Reply::new(538, "5.7.11", "a password needs TLS: use STARTTLS first, or the TLS port"));
        }
        if self.caller.account().is_some_and(|account| !account.has_no_password()) {
            return Turn::Say(Reply::new(503, "5.5.1", "you are signed in already"));
        }
        let Some(mechanism) = mechanism else {
            return Turn::Say(Reply::new(504, "5.5.4", "the mechanisms are PLAIN and LOGIN"));
        };
        let (exchange, step) = Exchange::begin(mechanism, initial);
        self.step(exchange, step).await
    }

    async fn step(&mut self, exchange: Exchange, step: std::result::Result<Step, Fault>) -> Turn<Reply> {
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
        let proved = self.door.hub.login(&self.origin, name, password).await;
        let outcome = proved.and_then(|caller| self.permit.account(caller.name()).map(|()| caller));
        let reply = match &outcome {
            Ok(_) => Reply::new(235, "2.7.0", "signed in"),
            Err(error) => Reply::refusal(Phase::Auth, error),
        };
        self.note("AUTH", name, 0, &reply, since);
        match outcome {
            Ok(caller) => self.caller = caller,
            Err(error) => {
                log_fault(&error);
                self.bad_sign_ins += 1;
                if self.bad_sign_ins >= MOST_BAD_SIGN_INS {
                    return Turn::Close(Some(Reply::new(421, "4.7.0", "too many failed sign-ins")));
                }
            }
        }
        Turn::Say(reply)
    }

    fn malformed(&self, malformed: Malformed) -> Turn<Reply> {
        match malformed {
            Malformed::Unknown => Turn::Say(Reply::new(500, "5.5.2", "command not recognised")),
            Malformed::Syntax(text) => Turn::Say(Reply::new(501, "5.5.4", text)),
            Malformed::TooLong => Turn::Say(Reply::new(500, "5.5.2", "the line is too long")),
            Malformed::Foreign(what) => {
                tracing::warn!(
                    peer = %self.origin.peer,
                    listener = &*self.origin.listener,
                    link = self.origin.link,
                    "not SMTP: the peer sent {what}"
                );
                Turn::Close(Some(Reply::new(221, "2.7.0", "this is SMTP; you speak something else")))
            }
        }
    }

    fn note(&self, verb: &str, path: &str, bytes: u64, reply: &Reply, since: Instant) {
        let (account, code) = (self.caller.name(), reply.code().to_string());
        let access = Access { origin: &self.origin, account, verb, path, bytes, result: &code, took: since.elapsed() };
        access.note();
    }
}

impl Dialogue for Session {
    type Command = Command;
    type Reply = Reply;

    // A bare LF ends a command (devices, people with netcat) but never a message: see `Framing::Dots`.
    const LINES: Lines = Lines { longest: LONGEST_ANSWER, bare_lf: true, telnet: false };

    fn parse(&self, line: &[u8]) -> std::result::Result<Command, Malformed> {
        match self.state {
            State::Proving(_) => Ok(Command::Answer(line.to_vec())),
            State::Fresh | State::Ready | State::Receiving(_) | State::Writing(_) => Command::parse(line),
        }
    }

    async fn answer(&mut self, command: Command) -> Turn<Reply> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, command) {
            (State::Proving(mut exchange), Command::Answer(line)) => {
                let step = exchange.answer(&line);
                self.step(exchange, step).await
            }
            (_, Command::Ehlo(name)) => Turn::Say(self.greet(name, true)),
            (_, Command::Helo(name)) => Turn::Say(self.greet(name, false)),
            (_, Command::Quit) => Turn::Close(Some(Reply::new(221, "2.0.0", "bye"))),
            (State::Ready | State::Writing(_), Command::Rset) => Turn::Say(Reply::new(250, "2.0.0", "forgotten")),
            (state @ (State::Fresh | State::Ready), Command::StartTls) => {
                self.state = state;
                self.start_tls()
            }
            (State::Ready, Command::Auth { mechanism, initial }) => {
                self.authenticate(mechanism, initial.as_deref()).await
            }
            (State::Ready, Command::Mail(mail)) => Turn::Say(self.begin(mail)),
            (state @ State::Writing(_), Command::Rcpt(address)) => {
                self.state = state;
                self.add(address).await
            }
            (State::Writing(writing), Command::Data) if !writing.recipients.is_empty() => self.take(*writing).await,
            (state, command) => {
                self.state = state;
                Turn::Say(self.unmoved(&command))
            }
        }
    }

    async fn react(&mut self, event: Event) -> Turn<Reply> {
        match event {
            Event::Opened => Turn::Say(Reply::plain(220, format!("{} ESMTP Stoa", self.door.host()))),
            Event::Malformed(malformed) => self.malformed(malformed),
            Event::Secured => {
                // RFC 3207 §4.2: everything said in the clear is forgotten.
                self.state = State::Fresh;
                self.hello = Hello::default();
                self.caller = self.door.hub.recognise(&self.origin);
                Turn::Wait
            }
            Event::Received(outcome) => Turn::Say(self.received(&outcome)),
            Event::Sent(_) => Turn::Wait,
            Event::Parting(why) => Turn::Close(Some(match why {
                Why::Errors => Reply::new(421, "4.7.0", "too many errors"),
                Why::Idle => Reply::new(421, "4.4.2", "nothing was said for too long"),
                Why::Shutdown => Reply::new(421, "4.3.2", "the server is shutting down; try again soon"),
                Why::Total => Reply::new(421, "4.4.2", "this connection has lasted long enough"),
            })),
        }
    }

    fn renew(&mut self, origin: &Origin) {
        self.origin = origin.clone();
    }

    fn settled(&self) -> bool {
        !matches!(self.state, State::Fresh)
    }
}

impl Session {
    /// Answers that change nothing, wherever the conversation is.
    fn unmoved(&self, command: &Command) -> Reply {
        match command {
            Command::Help => Reply::new(214, "2.0.0", "EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY STARTTLS AUTH"),
            Command::Noop => Reply::new(250, "2.0.0", "ok"),
            Command::Rset => Reply::new(250, "2.0.0", "nothing to forget"),
            Command::Unimplemented(verb) => Reply::new(502, "5.5.1", format!("{verb} is not done here")),
            Command::UnknownParameter(key) => Reply::new(555, "5.5.4", format!("the parameter {key} was not offered")),
            // RFC 5321 §3.5.3, §7.3: always the same words, so that nothing can be learnt from them.
            Command::Vrfy => Reply::new(252, "2.1.5", "send mail and see"),
            Command::Data => match &self.state {
                // RFC 2920 §3.1: a pipelined DATA after refused recipients.
                State::Writing(_) => Reply::new(554, "5.5.1", "no recipient was accepted"),
                State::Fresh | State::Proving(_) | State::Ready | State::Receiving(_) => {
                    self.too_early("MAIL and RCPT come first")
                }
            },
            Command::Mail(_) => self.too_early("a message is begun already; RSET forgets it"),
            Command::Rcpt(_) => self.too_early("MAIL comes first"),
            Command::Auth { .. } | Command::StartTls => self.too_early("not in the middle of a message"),
            Command::Answer(_) | Command::Ehlo(_) | Command::Helo(_) | Command::Quit => out_of_order("not now"),
        }
    }

    fn too_early(&self, text: &'static str) -> Reply {
        out_of_order(if matches!(self.state, State::Fresh) { "EHLO or HELO comes first" } else { text })
    }
}

fn out_of_order(text: &'static str) -> Reply {
    Reply::new(503, "5.5.1", text)
}

/// After an error the rest of a message is read and forgotten up to this, so that the reply is heard and in its place.
fn swallowed(most: u64) -> u64 {
    const AT_LEAST: u64 = 1 << 20;
    most.saturating_mul(2).max(AT_LEAST)
}

/// Faults of ours belong in the log; what a peer did wrong is in its access line.
fn log_fault(error: &Error) {
    if matches!(error.kind(), Kind::Corrupt | Kind::Internal | Kind::Unavailable) {
        tracing::error!(error = error.detail(), "mail could not be taken");
    }
}

fn listed(recipients: &[Recipient]) -> String {
    let mut text = String::new();
    for (number, recipient) in recipients.iter().enumerate() {
        if text.len() + recipient.address.len() > LONGEST_LOGGED && number > 0 {
            let _ = write!(text, " and {} more", recipients.len() - number);
            break;
        }
        if number > 0 {
            text.push(' ');
        }
        text.push_str(&recipient.address);
    }
    text
}
