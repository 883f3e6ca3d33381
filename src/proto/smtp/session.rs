//! One SMTP conversation: what is legal when, and which one question the hub is asked.
//!
//! Never holds the wire, never relays, never says more about a recipient than whether mail for it is taken.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::command::{Command, LONGEST_ANSWER};
use super::reply::Reply;
use super::trace::Speech;
use super::transaction::{Receiving, Writing};
use super::xclient::{ATTRIBUTES, Xclient};
use super::{Door, Role};
use crate::error::{Error, Kind};
use crate::hub::Caller;
use crate::hub::mail::Unheard;
use crate::net::{Link, Permit};
use crate::origin::Origin;
use crate::proto::dialogue::{Dialogue, Event, Lines, Malformed, Turn, Why};
use crate::proto::sasl::Exchange;
use crate::telemetry::Access;

/// Where a conversation is.
pub(super) enum State {
    /// Nobody said hello.
    Fresh,
    /// A SASL exchange waits for the client's next line.
    Proving(Exchange),
    /// Between messages.
    Ready,
    /// The content is on its way, or between two of its chunks.
    Receiving(Box<Receiving>),
    /// The octets of a BDAT that is refused are on their way; then this is said, and that goes on.
    Refusing(Box<(State, Reply)>),
    /// MAIL was taken, and some recipients perhaps.
    Writing(Box<Writing>),
}

/// What the peer said of itself, or a trusted machine of it.
#[derive(Default)]
pub(super) struct Hello {
    pub name: String,
    pub speech: Speech,
    /// Its name in the DNS, from XCLIENT.
    pub known: Option<String>,
}

/// One conversation.
pub(super) struct Session {
    pub(super) door: Arc<Door>,
    pub(super) origin: Origin,
    /// The machine at the other end, whatever XCLIENT says.
    neighbour: IpAddr,
    /// STARTTLS can be done here.
    upgradable: bool,
    pub(super) permit: Permit,
    pub(super) caller: Caller,
    pub(super) hello: Hello,
    pub(super) state: State,
    pub(super) bad_recipients: u32,
    pub(super) bad_sign_ins: u32,
    /// So many of them, and the connection is closed.
    pub(super) most_sign_ins: u32,
    /// A message was taken, and the client has not shown that it read so.
    pub(super) unheard: Option<Unheard>,
    /// What it said next was said before the reply went out.
    pub(super) early: bool,
    /// Why nothing has come of it so far.
    pub(super) trouble: Option<Cow<'static, str>>,
}

impl Session {
    /// Takes over the link's permit, to count the connection for the account that signs in.
    pub(super) fn new(door: Arc<Door>, link: &mut Link) -> Self {
        let origin = link.origin.clone();
        let caller = door.hub.recognise(&origin);
        Self {
            door,
            neighbour: origin.peer.ip(),
            origin,
            upgradable: link.tls.is_some(),
            permit: std::mem::replace(&mut link.permit, Permit::uncounted()),
            caller,
            hello: Hello::default(),
            state: State::Fresh,
            bad_recipients: 0,
            bad_sign_ins: 0,
            most_sign_ins: link.limits.sign_ins,
            unheard: None,
            early: false,
            trouble: None,
        }
    }

    fn offers_tls(&self) -> bool {
        self.upgradable && !self.origin.secure
    }

    fn is_welcome(&self) -> bool {
        self.door.networks.is_empty() || self.door.networks.hold(self.origin.peer.ip())
    }

    fn open(&mut self) -> Turn<Reply> {
        if !self.is_welcome() {
            self.trouble = Some("its address is in none of this listener's `networks`".into());
            tracing::warn!(
                peer = %self.origin.peer, listener = &*self.origin.listener,
                "refused: the peer is in none of this listener's networks"
            );
            let role = self.door.settings.role.word();
            let says = format!("this port takes mail from the {role} networks it was told of; yours is not among them");
            return Turn::Close(Some(Reply::new(554, "5.7.1", says)));
        }
        Turn::Say(self.greeting())
    }

    fn greeting(&self) -> Reply {
        let language = if self.door.settings.lmtp { "LMTP" } else { "ESMTP" };
        Reply::plain(220, format!("{} {language} Stoa", self.door.host()))
    }

    fn greet(&mut self, name: String, speech: Speech) -> Reply {
        match (speech, self.door.settings.lmtp) {
            (Speech::Local, false) => return Reply::new(500, "5.5.1", "this is SMTP: say EHLO"),
            (Speech::Extended | Speech::Plain, true) => return Reply::new(500, "5.5.1", "this is LMTP: say LHLO"),
            _ => {}
        }
        self.hello = Hello { name, speech, known: self.hello.known.take() };
        self.state = State::Ready;
        let host = self.door.host();
        if speech == Speech::Plain {
            return Reply::plain(250, host);
        }
        let settings = &self.door.settings;
        let size = match settings.message_size.0 {
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
            "CHUNKING".into(),
            // RFC 9422
            format!("LIMITS RCPTMAX={}", settings.recipients).into(),
        ];
        if self.offers_tls() && !self.door.no_starttls.hold(self.origin.peer.ip()) {
            lines.push("STARTTLS".into());
        }
        if self.offers_auth() {
            lines.push("AUTH PLAIN LOGIN".into());
        }
        if self.door.xclient_from.hold(self.neighbour) {
            lines.push(ATTRIBUTES.into());
        }
        lines.push("HELP".into());
        Reply::lines(250, lines)
    }

    fn start_tls(&mut self) -> Turn<Reply> {
        if self.origin.secure {
            return Turn::Say(Reply::new(503, "5.5.1", "TLS is up already"));
        }
        if !self.upgradable {
            self.trouble = Some("it insists on STARTTLS, which this listener does not offer: give the listener tls = \"upgrade\", or switch TLS off in the machine".into());
            return Turn::Say(Reply::new(502, "5.5.1", "this port offers no TLS"));
        }
        Turn::Secure(Reply::new(220, "2.0.0", "ready for TLS"))
    }

    /// A machine we trust says for whom it speaks; the conversation begins anew with that one.
    fn speak_for(&mut self, client: Xclient) -> Turn<Reply> {
        if !self.door.xclient_from.hold(self.neighbour) {
            self.trouble = Some("it says XCLIENT, and its address is not in xclient_from".into());
            return Turn::Say(Reply::new(550, "5.7.0", "you may not say who you are"));
        }
        if let Some(address) = client.address {
            self.origin.peer.set_ip(address.to_canonical());
        }
        if let Some(port) = client.port {
            self.origin.peer.set_port(port);
        }
        let speech = if client.extended == Some(false) { Speech::Plain } else { Speech::Extended };
        self.hello = Hello { name: client.helo.unwrap_or_default(), speech, known: client.name };
        self.caller = self.door.hub.recognise(&self.origin);
        self.state = State::Fresh;
        self.open()
    }

    fn malformed(&mut self, malformed: Malformed) -> Turn<Reply> {
        match malformed {
            Malformed::Blank | Malformed::Unknown => Turn::Say(Reply::new(500, "5.5.2", "command not recognised")),
            Malformed::Syntax(text) => Turn::Say(Reply::new(501, "5.5.4", text)),
            Malformed::TooLong => Turn::Say(Reply::new(500, "5.5.2", "the line is too long")),
            Malformed::Early => {
                self.trouble = Some("it does not wait for replies, as mail servers must; a listener with role = \"device\" or \"general\" lets it".into());
                Turn::Close(Some(Reply::new(554, "5.5.0", "wait for the reply before you say more (RFC 2920)")))
            }
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

    pub(super) fn note(&self, verb: &str, path: &str, bytes: u64, reply: &Reply, since: Instant) {
        let (account, code) = (self.caller.name(), reply.code().to_string());
        let access = Access { origin: &self.origin, account, verb, path, bytes, result: &code, took: since.elapsed() };
        access.note();
    }

    /// BDAT where no message is being addressed, or after the error of an earlier one.
    fn stray_chunk(&mut self, state: State, octets: u64) -> Turn<Reply> {
        let reply = match &state {
            // RFC 2920 §3.1: pipelined behind refused recipients.
            State::Writing(_) => Reply::new(554, "5.5.1", "no recipient was accepted"),
            _ => self.too_early_in(&state, "MAIL and RCPT come first"),
        };
        self.swallow(state, octets, reply)
    }
}

impl Dialogue for Session {
    type Command = Command;
    type Reply = Reply;

    // A bare LF ends a command (devices, people with netcat) but never a message: see `Framing::Dots`.
    const LINES: Lines = Lines { longest: LONGEST_ANSWER, bare_lf: true, telnet: false };

    fn parse(&self, line: &[u8]) -> Result<Command, Malformed> {
        match self.state {
            State::Proving(_) => Ok(Command::Answer(line.to_vec().into())),
            _ => Command::parse(line),
        }
    }

    async fn answer(&mut self, command: Command) -> Turn<Reply> {
        // Mail servers send QUIT behind the dot, without waiting; whoever begins another message goes on knowingly.
        if !(self.early && matches!(command, Command::Quit)) {
            self.note_read();
        }
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, command) {
            (State::Proving(mut exchange), Command::Answer(line)) => {
                let step = exchange.answer(&line);
                self.step(exchange, step).await
            }
            (_, Command::Quit) => Turn::Close(Some(Reply::new(221, "2.0.0", "bye"))),
            (_, Command::BdatGarbled) => Turn::Close(Some(Reply::new(
                501,
                "5.5.4",
                "the form is BDAT octets [LAST]; where this one ends is lost",
            ))),
            (_, Command::Bdat { octets, .. }) if self.is_hopeless(octets) => {
                self.trouble = Some("its message is larger than message_size".into());
                let says = match self.door.settings.message_size.0 {
                    0 => "no message is that large".to_owned(),
                    most => format!("the largest message taken here has {most} bytes"),
                };
                Turn::Close(Some(Reply::new(552, "5.3.4", says)))
            }
            (state, Command::Ehlo(name)) => Turn::Say(self.hail(state, name, Speech::Extended)),
            (state, Command::Helo(name)) => Turn::Say(self.hail(state, name, Speech::Plain)),
            (state, Command::Lhlo(name)) => Turn::Say(self.hail(state, name, Speech::Local)),
            (State::Ready | State::Writing(_) | State::Receiving(_), Command::Rset) => {
                Turn::Say(Reply::new(250, "2.0.0", "forgotten"))
            }
            (state @ (State::Fresh | State::Ready), Command::StartTls) => {
                self.state = state;
                self.start_tls()
            }
            (State::Fresh | State::Ready, Command::Xclient(client)) => self.speak_for(client),
            (State::Ready, Command::Auth { mechanism, initial }) => {
                self.authenticate(mechanism, initial.as_deref().map(Vec::as_slice)).await
            }
            (State::Ready, Command::Mail(mail)) => Turn::Say(self.begin(mail).await),
            (state @ State::Writing(_), Command::Rcpt(address)) => {
                self.state = state;
                self.add(address).await
            }
            (State::Writing(writing), Command::Data) if !writing.recipients.is_empty() => self.take(*writing).await,
            (State::Writing(writing), Command::Bdat { octets, last }) if !writing.recipients.is_empty() => {
                self.take_first(*writing, octets, last).await
            }
            (State::Receiving(receiving), Command::Bdat { octets, last }) if receiving.goes_on() => {
                self.take_next(*receiving, octets, last)
            }
            (state, Command::Bdat { octets, .. }) => self.stray_chunk(state, octets),
            (state, command) => {
                self.state = state;
                let reply = self.unmoved(&command);
                if reply.code() == 503 {
                    self.trouble = Some("it says commands in an order that cannot be; see the first 503".into());
                }
                Turn::Say(reply)
            }
        }
    }

    async fn react(&mut self, event: Event) -> Turn<Reply> {
        match event {
            Event::Opened => self.open(),
            Event::Malformed(malformed) => {
                self.note_read();
                self.malformed(malformed)
            }
            Event::Secured => {
                // RFC 3207 §4.2: everything said in the clear is forgotten.
                self.state = State::Fresh;
                self.hello = Hello::default();
                self.caller = self.door.hub.recognise(&self.origin);
                Turn::Wait
            }
            Event::Received(_, outcome) => Turn::Say(self.received(&outcome)),
            Event::Sent(..) => Turn::Wait,
            Event::Parting(why) => Turn::Close(Some(match why {
                Why::Errors => Reply::new(421, "4.7.0", "too many errors"),
                Why::Idle => Reply::new(421, "4.4.2", "nothing was said for too long"),
                Why::Revoked => Reply::new(421, "4.7.0", "your sign-in has ended"),
                Why::Shutdown => Reply::new(421, "4.3.2", "the server is shutting down; try again soon"),
                Why::Total => Reply::new(421, "4.4.2", "this connection has lasted long enough"),
            })),
        }
    }

    fn is_unheard(&self) -> bool {
        self.unheard.is_some()
    }

    fn replying(&mut self, early: bool) {
        self.early = early;
    }

    fn left(&mut self, whole: bool) {
        if whole {
            self.note_read();
        }
    }

    fn must_wait(&self, command: &Command) -> bool {
        // A program made to talk to us (a browser, a smuggled message) does not wait; mail servers do.
        let group_ends = matches!(command, Command::Data | Command::Ehlo(_) | Command::Helo(_));
        self.door.settings.role == Role::Mx && group_ends
    }

    fn shown(&self, line: &[u8]) -> usize {
        match self.state {
            State::Proving(_) => 0,
            _ => Command::shown(line),
        }
    }

    fn trouble(&self) -> Option<&str> {
        // A port for the whole world hears too much nonsense to remember it; what it refuses is in the access log.
        self.trouble.as_deref().filter(|_| self.door.settings.role != Role::Mx)
    }

    fn origin(&self) -> Option<&Origin> {
        Some(&self.origin)
    }

    fn account(&self) -> &str {
        self.caller.name()
    }

    fn ended(&self) -> Option<&CancellationToken> {
        self.caller.ended()
    }

    fn renew(&mut self, origin: &Origin) {
        // Who is at the other end does not change with TLS, and what XCLIENT said of it stays.
        self.origin.secure = origin.secure;
    }

    fn settled(&self) -> bool {
        !matches!(self.state, State::Fresh)
    }
}

impl Session {
    /// The client has shown that it read the last reply.
    fn note_read(&mut self) {
        if let Some(unheard) = self.unheard.take() {
            unheard.read();
        }
    }

    /// A greeting resets everything but the sign-in; a wrong one changes nothing.
    fn hail(&mut self, state: State, name: String, speech: Speech) -> Reply {
        self.state = state;
        self.greet(name, speech)
    }

    /// Answers that change nothing, wherever the conversation is.
    fn unmoved(&self, command: &Command) -> Reply {
        match command {
            Command::Help => {
                Reply::new(214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY STARTTLS AUTH")
            }
            Command::Noop => Reply::new(250, "2.0.0", "ok"),
            Command::Rset => Reply::new(250, "2.0.0", "nothing to forget"),
            Command::Unimplemented(verb) => Reply::new(502, "5.5.1", format!("{verb} is not done here")),
            Command::UnknownParameter(key) => Reply::new(555, "5.5.4", format!("the parameter {key} was not offered")),
            // RFC 5321 §3.5.3, §7.3: always the same words, so that nothing can be learnt from them.
            Command::Vrfy => Reply::new(252, "2.1.5", "send mail and see"),
            Command::Data => match &self.state {
                // RFC 2920 §3.1: a pipelined DATA after refused recipients.
                State::Writing(_) => Reply::new(554, "5.5.1", "no recipient was accepted"),
                State::Receiving(_) => out_of_order("the message comes by BDAT; end it with BDAT LAST"),
                state => self.too_early_in(state, "MAIL and RCPT come first"),
            },
            Command::Mail(_) => self.too_early_in(&self.state, "a message is begun already; RSET forgets it"),
            Command::Rcpt(_) => match &self.state {
                State::Receiving(_) => out_of_order("the message is being sent already"),
                state => self.too_early_in(state, "MAIL comes first"),
            },
            Command::Auth { .. } | Command::StartTls | Command::Xclient(_) => {
                self.too_early_in(&self.state, "not in the middle of a message")
            }
            Command::Answer(_)
            | Command::Bdat { .. }
            | Command::BdatGarbled
            | Command::Ehlo(_)
            | Command::Helo(_)
            | Command::Lhlo(_)
            | Command::Quit => out_of_order("not now"),
        }
    }

    fn too_early_in(&self, state: &State, text: &'static str) -> Reply {
        out_of_order(match (state, self.door.settings.lmtp) {
            (State::Fresh, false) => "EHLO or HELO comes first",
            (State::Fresh, true) => "LHLO comes first",
            _ => text,
        })
    }
}

pub(super) fn out_of_order(text: &'static str) -> Reply {
    Reply::new(503, "5.5.1", text)
}

/// Faults of ours belong in the log; what a peer did wrong is in its access line.
pub(super) fn log_fault(error: &Error) {
    if matches!(error.kind(), Kind::Corrupt | Kind::Full | Kind::Internal | Kind::Unavailable) {
        tracing::error!(error = error.detail(), "mail could not be taken");
    }
}
