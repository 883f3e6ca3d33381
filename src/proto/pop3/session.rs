//! One POP3 conversation: AUTHORIZATION, TRANSACTION, and the UPDATE at QUIT (RFC 1939 §3).
//!
//! Never holds the wire. What was marked as deleted goes only at QUIT: a link that drops, idles out or is parted from deletes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::Door;
use super::command::{Command, LONGEST_ANSWER, Number};
use super::maildrop::{Maildrop, Message};
use super::reply::Reply;
use super::show::{Column, Scan, Top};
use super::trouble::shown;
use crate::error::{Error, Kind, Result};
use crate::hub::Download;
use crate::net::{Link, Permit};
use crate::origin::Origin;
use crate::proto::dialogue::{Bare, Dialogue, Event, Feed, Framing, Lane, Lines, Malformed, Source, Turn, Why};
use crate::proto::sasl::{Exchange, Fault, Mechanism, Step};
use crate::telemetry::Access;

/// A body that ends with one dot; the other two are about bodies that come in.
const DOTS: Framing = Framing::Dots { swallow: 0, bare: Bare::Keep };

/// Where a conversation is.
enum State {
    /// Nobody signed in; perhaps a name was given.
    Authorization(Option<String>),
    /// A SASL exchange waits for the client's next line.
    Proving(Exchange),
    /// Signed in, with the maildrop held.
    Transaction(Box<Transaction>),
}

/// A maildrop being read.
struct Transaction {
    account: String,
    /// Cancelled when the sign-in ends.
    ended: Option<CancellationToken>,
    maildrop: Maildrop,
    /// Marked by DELE, by index.
    deleted: BTreeSet<usize>,
    /// On its way to the client.
    giving: Option<Giving>,
}

/// A body on its way out.
struct Giving {
    verb: &'static str,
    /// Which message, unless it is a listing.
    index: Option<usize>,
    since: Instant,
}

/// One conversation.
pub(super) struct Session {
    door: Arc<Door>,
    origin: Origin,
    /// STLS can be done here.
    upgradable: bool,
    permit: Permit,
    state: State,
    bad_sign_ins: u32,
    most_sign_ins: u32,
    /// Who signed in last, or tried to.
    name: String,
    /// Why it fails so far.
    pub(super) trouble: Option<Box<str>>,
}

impl Session {
    /// Takes over the link's permit, to count the connection for the account that signs in.
    pub(super) fn new(door: Arc<Door>, link: &mut Link) -> Self {
        Self {
            door,
            origin: link.origin.clone(),
            upgradable: link.tls.is_some(),
            permit: std::mem::replace(&mut link.permit, Permit::uncounted()),
            state: State::Authorization(None),
            bad_sign_ins: 0,
            most_sign_ins: link.limits.sign_ins,
            name: String::new(),
            trouble: None,
        }
    }

    fn offers_tls(&self) -> bool {
        self.upgradable && !self.origin.secure
    }

    /// Passwords are asked for only where nobody can read them, unless the operator said otherwise.
    fn takes_passwords(&self) -> bool {
        self.origin.secure || self.door.settings.auth_in_clear
    }

    fn capabilities(&self, signed_in: bool) -> Reply {
        let mut lines = vec!["TOP".into(), "UIDL".into(), "RESP-CODES".into(), "AUTH-RESP-CODE".into()];
        // Nothing is removed but by its owner (RFC 2449 §6.7).
        lines.extend(["PIPELINING".into(), "EXPIRE NEVER".into()]);
        if !signed_in {
            if self.offers_tls() {
                lines.push("STLS".into());
            }
            if self.takes_passwords() {
                lines.extend(["USER".into(), "SASL PLAIN LOGIN".into()]);
            }
        }
        lines.push("IMPLEMENTATION Stoa".into());
        Reply::Lines { text: "this can be asked".into(), lines }
    }

    async fn authorize(&mut self, name: Option<String>, command: Command) -> Turn<Reply> {
        match command {
            Command::User(_) | Command::Pass(_) | Command::Auth { .. } | Command::Mechanisms
                if !self.takes_passwords() =>
            {
                Turn::Say(Reply::permanent("a password needs TLS: use STLS first, or the TLS port"))
            }
            Command::User(name) => {
                self.state = State::Authorization(Some(name));
                Turn::Say(Reply::ok("and the password?"))
            }
            Command::Pass(password) => match name {
                Some(name) => self.sign_in(&name, &password).await,
                None => Turn::Say(Reply::err("USER comes first")),
            },
            Command::Auth { mechanism, initial } => {
                self.authenticate(mechanism, initial.as_deref().map(Vec::as_slice)).await
            }
            Command::Mechanisms => {
                Turn::Say(Reply::Lines { text: "mechanisms".into(), lines: vec!["PLAIN".into(), "LOGIN".into()] })
            }
            Command::Stls if self.origin.secure => Turn::Say(Reply::err("TLS is up already")),
            Command::Stls if !self.upgradable => Turn::Say(Reply::err("this port offers no TLS")),
            Command::Stls => Turn::Secure(Reply::ok("ready for TLS")),
            Command::Quit => Turn::Close(Some(Reply::ok("bye"))),
            Command::Capa => {
                self.state = State::Authorization(name);
                Turn::Say(self.capabilities(false))
            }
            Command::Answer(_)
            | Command::Dele(_)
            | Command::List(_)
            | Command::Noop
            | Command::Retr(_)
            | Command::Rset
            | Command::Stat
            | Command::Top(..)
            | Command::Uidl(_) => {
                self.state = State::Authorization(name);
                Turn::Say(Reply::err("sign in first"))
            }
        }
    }

    async fn authenticate(&mut self, mechanism: Option<Mechanism>, initial: Option<&[u8]>) -> Turn<Reply> {
        let Some(mechanism) = mechanism else {
            return Turn::Say(Reply::err("the mechanisms are PLAIN and LOGIN"));
        };
        let (exchange, step) = Exchange::begin(mechanism, initial);
        self.step(exchange, step).await
    }

    async fn step(&mut self, exchange: Exchange, step: std::result::Result<Step, Fault>) -> Turn<Reply> {
        match step {
            Ok(Step::Challenge(text)) => {
                self.state = State::Proving(exchange);
                Turn::Say(Reply::Challenge(text))
            }
            Ok(Step::Done(credentials)) => self.sign_in(&credentials.name, &credentials.password).await,
            Err(Fault::Cancelled) => Turn::Say(Reply::err("sign-in cancelled")),
            Err(Fault::Garbled) => Turn::Say(Reply::err("that is not base64 of what was asked for")),
            Err(Fault::OtherIdentity) => {
                let words = "signing in on behalf of somebody else is not possible";
                Turn::Say(Reply::Err { code: "AUTH", text: words.into() })
            }
        }
    }

    /// The password is looked at first: whose mailbox is in use is told only to its owner.
    async fn sign_in(&mut self, name: &str, password: &[u8]) -> Turn<Reply> {
        let since = Instant::now();
        name.clone_into(&mut self.name);
        let outcome = self.open(name, password).await;
        let reply = match &outcome {
            Ok(open) => Reply::ok(open.maildrop.summary()),
            Err(error) => Reply::refusal(error),
        };
        self.note("PASS", name, "", 0, &reply.word(), since);
        match outcome {
            Ok(open) => self.state = State::Transaction(Box::new(open)),
            Err(error) => {
                log_fault(&error);
                self.bad_sign_ins += 1;
                if self.bad_sign_ins >= self.most_sign_ins {
                    return Turn::Close(Some(reply));
                }
            }
        }
        Turn::Say(reply)
    }

    async fn open(&mut self, name: &str, password: &[u8]) -> Result<Transaction> {
        let caller = self.door.hub.login(&self.origin, name, password).await?;
        self.permit.account(caller.name())?;
        let (account, ended) = (caller.name().to_owned(), caller.ended().cloned());
        let maildrop = Maildrop::open(&caller).await?;
        Ok(Transaction { account, ended, maildrop, deleted: BTreeSet::new(), giving: None })
    }

    async fn transact(&mut self, open: &mut Transaction, command: Command) -> Turn<Reply> {
        match command {
            Command::Stat => Turn::Say(open.stat()),
            Command::List(None) => open.scan("LIST", Column::Octets),
            Command::Uidl(None) => open.scan("UIDL", Column::Unique),
            Command::List(Some(number)) => Turn::Say(open.show(number, Column::Octets)),
            Command::Uidl(Some(number)) => Turn::Say(open.show(number, Column::Unique)),
            Command::Retr(number) => match open.fetch(number).await {
                Ok((index, download)) => open.give_message(index, download),
                Err(error) => self.refuse("RETR", &open.account, number, &error),
            },
            Command::Top(number, lines) => match open.fetch(number).await {
                Ok((index, download)) => {
                    open.give("TOP", Some(index), "the top follows", Box::new(Top::new(download, lines)))
                }
                Err(error) => self.refuse("TOP", &open.account, number, &error),
            },
            Command::Dele(number) => Turn::Say(open.delete(number)),
            Command::Noop => Turn::Say(Reply::ok("nothing done")),
            Command::Rset => {
                open.deleted.clear();
                Turn::Say(Reply::ok(open.maildrop.summary()))
            }
            Command::Capa => Turn::Say(self.capabilities(true)),
            Command::Answer(_)
            | Command::Auth { .. }
            | Command::Mechanisms
            | Command::Pass(_)
            | Command::Quit
            | Command::Stls
            | Command::User(_) => Turn::Say(Reply::err("you are signed in already")),
        }
    }

    /// RFC 1939 §6: the only place where something is removed.
    async fn update(&self, mut open: Transaction) -> Turn<Reply> {
        let since = Instant::now();
        let reply = match open.maildrop.remove(&open.deleted).await {
            Ok(()) => Reply::ok(format!("bye; {} deleted", open.deleted.len())),
            Err(error) => {
                log_fault(&error);
                Reply::refusal(&error).about("some deleted messages were not removed")
            }
        };
        let deleted = format!("{} deleted", open.deleted.len());
        self.note("QUIT", &open.account, &deleted, 0, &reply.word(), since);
        open.maildrop.close().await;
        Turn::Close(Some(reply))
    }

    fn refuse(&self, verb: &'static str, account: &str, number: Number, error: &Error) -> Turn<Reply> {
        log_fault(error);
        let reply = Reply::refusal(error);
        self.note(verb, account, &format!("message {number}"), 0, &reply.word(), Instant::now());
        Turn::Say(reply)
    }

    /// A body went out, or the link broke under it.
    fn sent(&self, open: &mut Transaction, bytes: u64, outcome: &Result<()>) {
        let Some(giving) = open.giving.take() else { return };
        let message = giving.index.and_then(|index| open.maildrop.messages().get(index));
        let word = match outcome {
            Ok(()) => "+OK",
            Err(error) => {
                log_fault(error);
                "cut"
            }
        };
        let what = message.map_or("", |message| message.unique.as_str());
        self.note(giving.verb, &open.account, what, bytes, word, giving.since);
        if let (Ok(()), "RETR", Some(index)) = (outcome, giving.verb, giving.index) {
            open.maildrop.fetched(index);
        }
    }

    fn malformed(&self, malformed: Malformed) -> Turn<Reply> {
        match malformed {
            Malformed::Blank | Malformed::Unknown | Malformed::Early => Turn::Say(Reply::err("command not recognised")),
            Malformed::Syntax(text) => Turn::Say(Reply::err(text)),
            Malformed::TooLong => Turn::Say(Reply::err("the line is too long")),
            Malformed::Foreign(what) => {
                tracing::warn!(
                    peer = %self.origin.peer,
                    listener = &*self.origin.listener,
                    link = self.origin.link,
                    "not POP3: the peer sent {what}"
                );
                Turn::Close(Some(Reply::err("this is POP3; you speak something else")))
            }
        }
    }

    fn note(&self, verb: &str, account: &str, path: &str, bytes: u64, result: &str, since: Instant) {
        Access { origin: &self.origin, account, verb, path, bytes, result, took: since.elapsed() }.note();
    }
}

impl Transaction {
    fn stat(&self) -> Reply {
        let all = self.maildrop.messages().iter().enumerate();
        let (count, octets) = all
            .filter(|(index, _)| !self.deleted.contains(index))
            .fold((0, 0_u64), |(count, octets), (_, message)| (count + 1, octets.saturating_add(message.octets)));
        Reply::ok(format!("{count} {octets}"))
    }

    /// The message of that number, unless it is marked as deleted.
    fn find(&self, number: Number) -> Result<(usize, &Message)> {
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let found = index.and_then(|index| Some((index, self.maildrop.messages().get(index)?)));
        match found {
            None => Err(Error::new(Kind::NotFound, format!("there is no message {number}"))),
            Some((index, _)) if self.deleted.contains(&index) => {
                Err(Error::new(Kind::NotFound, format!("message {number} is marked as deleted")))
            }
            Some(found) => Ok(found),
        }
    }

    fn show(&self, number: Number, column: Column) -> Reply {
        match self.find(number) {
            Ok((index, message)) => Reply::ok(column.line(index, message)),
            Err(error) => Reply::refusal(&error),
        }
    }

    fn delete(&mut self, number: Number) -> Reply {
        match self.find(number).map(|(index, _)| index) {
            Ok(index) => {
                self.deleted.insert(index);
                Reply::ok(format!("message {number} will be deleted at QUIT"))
            }
            Err(error) => Reply::refusal(&error),
        }
    }

    async fn fetch(&mut self, number: Number) -> Result<(usize, Download)> {
        let index = self.find(number)?.0;
        Ok((index, self.maildrop.read(index).await?))
    }

    fn scan(&mut self, verb: &'static str, column: Column) -> Turn<Reply> {
        let messages = self.maildrop.messages().clone();
        let scan = Scan { messages, deleted: self.deleted.clone(), column, next: 0 };
        self.give(verb, None, "the list follows", Box::new(scan))
    }

    fn give(
        &mut self,
        verb: &'static str,
        index: Option<usize>,
        says: &'static str,
        feed: Box<dyn Feed>,
    ) -> Turn<Reply> {
        self.giving = Some(Giving { verb, index, since: Instant::now() });
        Turn::Give { prompt: Some(Reply::ok(says)), source: Source::Feed(feed), framing: DOTS, lane: Lane::Inline }
    }

    fn give_message(&mut self, index: usize, download: Download) -> Turn<Reply> {
        self.giving = Some(Giving { verb: "RETR", index: Some(index), since: Instant::now() });
        let octets = self.maildrop.messages().get(index).map_or(0, |message| message.octets);
        let whole = 0..download.node().size;
        Turn::Give {
            prompt: Some(Reply::ok(format!("{octets} octets"))),
            source: Source::File(download, whole),
            framing: DOTS,
            lane: Lane::Inline,
        }
    }
}

impl Session {
    /// Does what a command says, in the state there is.
    async fn follow(&mut self, command: Command) -> Turn<Reply> {
        match (std::mem::replace(&mut self.state, State::Authorization(None)), command) {
            (State::Authorization(name), command) => self.authorize(name, command).await,
            (State::Proving(mut exchange), Command::Answer(line)) => {
                let step = exchange.answer(&line);
                self.step(exchange, step).await
            }
            (State::Proving(_), command) => self.authorize(None, command).await,
            (State::Transaction(open), Command::Quit) => self.update(*open).await,
            (State::Transaction(mut open), command) => {
                let turn = self.transact(&mut open, command).await;
                self.state = State::Transaction(open);
                turn
            }
        }
    }
}

impl Dialogue for Session {
    type Command = Command;
    type Reply = Reply;

    const LINES: Lines = Lines { longest: LONGEST_ANSWER, bare_lf: true, telnet: false };

    fn parse(&self, line: &[u8]) -> std::result::Result<Command, Malformed> {
        match self.state {
            State::Proving(_) => Ok(Command::Answer(line.to_vec().into())),
            State::Authorization(_) | State::Transaction(_) => Command::parse(line),
        }
    }

    async fn answer(&mut self, command: Command) -> Turn<Reply> {
        let weighed = command.weighed();
        let turn = self.follow(command).await;
        self.weigh(weighed, &turn);
        turn
    }

    fn shown(&self, line: &[u8]) -> usize {
        if matches!(self.state, State::Proving(_)) { 0 } else { shown(line) }
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn account(&self) -> &str {
        &self.name
    }

    async fn react(&mut self, event: Event) -> Turn<Reply> {
        match event {
            Event::Opened => Turn::Say(Reply::ok("Stoa POP3 ready")),
            Event::Malformed(malformed) => self.malformed(malformed),
            Event::Secured => {
                // RFC 2595 §4: everything said in the clear is forgotten.
                self.state = State::Authorization(None);
                Turn::Wait
            }
            Event::Sent(bytes, outcome) => {
                if let State::Transaction(mut open) = std::mem::replace(&mut self.state, State::Authorization(None)) {
                    self.sent(&mut open, bytes, &outcome);
                    self.state = State::Transaction(open);
                }
                Turn::Wait
            }
            Event::Received(..) => Turn::Wait,
            Event::Parting(why) => Turn::Close(match why {
                // RFC 1939 §3: without a word, and without UPDATE.
                Why::Idle => None,
                Why::Errors => Some(Reply::err("too many errors")),
                Why::Revoked => {
                    Some(Reply::Err { code: "AUTH", text: "your sign-in has ended; nothing was deleted".into() })
                }
                Why::Shutdown => Some(Reply::Err {
                    code: "SYS/TEMP",
                    text: "the server is shutting down; nothing was deleted".into(),
                }),
                Why::Total => Some(Reply::err("this connection has lasted long enough; nothing was deleted")),
            }),
        }
    }

    fn renew(&mut self, origin: &Origin) {
        self.origin = origin.clone();
    }

    fn ended(&self) -> Option<&CancellationToken> {
        match &self.state {
            State::Transaction(open) => open.ended.as_ref(),
            State::Authorization(_) | State::Proving(_) => None,
        }
    }

    fn settled(&self) -> bool {
        matches!(self.state, State::Transaction(_))
    }
}

/// Faults of ours belong in the log; what a peer did wrong is in its access line.
fn log_fault(error: &Error) {
    if matches!(error.kind(), Kind::Corrupt | Kind::Internal | Kind::Unavailable) {
        tracing::error!(error = error.detail(), "a mailbox could not be read");
    }
}
