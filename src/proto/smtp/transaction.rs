//! One message: MAIL, RCPT, then DATA or BDAT, and what is said when it has come or not.

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Role;
use super::address::Address;
use super::command::Mail;
use super::head::{Head, Missing};
use super::letter::{Chunk, Letter, Outcomes, Refused, Shelf};
use super::reply::{Phase, Reply};
use super::session::{Session, State, log_fault, out_of_order};
use super::status::Status;
use super::trace::{Trace, date, envelope_to};
use super::verify::{Claim, Prover};
use crate::error::{Error, Kind, Result};
use crate::hub::mail::Unheard;
use crate::hub::{Envelope, Rcpt, Receipt, Recipient};
use crate::proto::dialogue::{Framing, Lane, Turn};

/// Unknown recipients answered at once; each one more waits longer, so that names cannot be guessed quickly.
const PATIENT_RECIPIENTS: u32 = 3;
/// What each unknown recipient beyond the patience adds to the wait.
const SLOWER: Duration = Duration::from_millis(100);
/// The longest such wait.
const SLOWEST: Duration = Duration::from_millis(500);
/// The largest BDAT where messages have no limit: no disk holds more.
const LARGEST_CHUNK: u64 = 1 << 50;
/// Bytes of a recipient list in an access line.
const LONGEST_LOGGED: usize = 256;

/// A message being addressed.
pub(super) struct Writing {
    pub mail: Mail,
    pub recipients: Vec<Recipient>,
}

/// A message whose content comes.
pub(super) struct Receiving {
    id: String,
    /// For the log.
    recipients: String,
    /// Whether its reply was read.
    unheard: Unheard,
    /// How many there are, each with a reply of its own; LMTP only.
    each: Option<(usize, Outcomes)>,
    /// Where it waits for the next chunk; BDAT only.
    shelf: Option<Shelf>,
    since: Instant,
}

/// An opened message on its way to a turn.
struct Opened {
    receiving: Receiving,
    letter: Letter,
}

impl Session {
    pub(super) async fn begin(&mut self, mail: Mail) -> Reply {
        let most = self.door.settings.message_size.0;
        let submission = self.door.settings.role == Role::Submission;
        if let Some(sender) = mail.sender.as_ref().filter(|sender| self.is_borrowed(&sender.domain)) {
            self.trouble = Some(
                "it sends as an address of ours without a sign-in: give it a name and password, or its network to [smtp] own_senders"
                    .into(),
            );
            return Reply::new(550, "5.7.1", format!("{sender} is an address of ours: sign in to send as it"));
        }
        if submission && self.caller.is_guest() {
            self.trouble = Some("it sent MAIL before AUTH: this listener (role = \"submission\") takes nothing without a sign-in. Give the machine a name and password, and TLS, or the port of a device listener".into());
            return Reply::new(530, "5.7.0", "sign in first");
        }
        if most > 0 && mail.size.is_some_and(|size| size > most) {
            self.trouble = Some("its message is larger than message_size".into());
            return Reply::new(552, "5.3.4", format!("the largest message taken here has {most} bytes"));
        }
        if !mail.utf8 && mail.sender.as_ref().is_some_and(Address::is_international) {
            return Reply::new(553, "5.6.7", "an address beyond ASCII needs SMTPUTF8");
        }
        if let (true, Some(sender)) = (submission, &mail.sender)
            && !self.door.hub.sends_as(&self.caller, &sender.local, &sender.domain).await
        {
            self.trouble = Some(format!("it signed in as {} and sends as somebody else", self.caller.name()).into());
            return Reply::new(553, "5.7.1", format!("{} may not send as {sender}", self.caller.name()));
        }
        self.state = State::Writing(Box::new(Writing { mail, recipients: Vec::new() }));
        Reply::new(250, "2.1.0", "sender ok")
    }

    /// A stranger uses a name of ours where only our own people should.
    fn is_borrowed(&self, domain: &str) -> bool {
        let open = match self.door.settings.role {
            Role::Catch | Role::Device | Role::Submission => true,
            Role::General | Role::Mx => self.door.settings.lmtp,
        };
        let ours = !domain.is_empty() && self.door.hub.serves_domain(domain);
        ours && !open && self.caller.is_guest() && !self.door.own_senders.hold(self.origin.peer.ip())
    }

    pub(super) async fn add(&mut self, address: Address) -> Turn<Reply> {
        let State::Writing(writing) = &mut self.state else { return Turn::Say(out_of_order("MAIL first")) };
        if !writing.mail.utf8 && address.is_international() {
            return Turn::Say(Reply::new(553, "5.6.7", "an address beyond ASCII needs SMTPUTF8"));
        }
        if writing.recipients.len() >= self.door.settings.recipients {
            return Turn::Say(Reply::new(452, "4.5.3", "enough recipients; send the rest in another message"));
        }
        let since = Instant::now();
        let (catch_all, size) = (self.door.settings.catch_all.as_str(), writing.mail.size);
        let sender = writing.mail.sender.as_ref().map(ToString::to_string).unwrap_or_default();
        let asks = |local, domain, catch_all| Rcpt { local, domain, sender: &sender, catch_all, size };
        let asked = match self.door.settings.role {
            Role::Catch => {
                let box_of = self.door.hub.recipient(&self.caller, &asks(catch_all, "", None)).await;
                box_of.map(|recipient| Recipient { address: address.to_string(), ..recipient })
            }
            Role::Device | Role::General | Role::Mx | Role::Submission => {
                let rcpt = asks(&address.local, &address.domain, Some(catch_all));
                self.door.hub.recipient(&self.caller, &rcpt).await
            }
        };
        match asked {
            Ok(recipient) => {
                writing.recipients.push(recipient);
                Turn::Say(Reply::new(250, "2.1.5", "recipient ok"))
            }
            Err(error) => self.refuse_recipient(&address, &error, since).await,
        }
    }

    async fn refuse_recipient(&mut self, address: &Address, error: &Error, since: Instant) -> Turn<Reply> {
        let reply = Reply::refusal(Phase::Recipient, error);
        self.trouble = Some(format!("the recipient {address} was refused: {}", error.public()).into());
        self.note("RCPT", &address.to_string(), 0, &reply, since);
        log_fault(error);
        if reply.code() < 500 {
            return Turn::Say(reply);
        }
        self.bad_recipients += 1;
        if self.bad_recipients >= self.door.settings.bad_recipients {
            return Turn::Close(Some(Reply::new(421, "4.7.0", "too many recipients that are not here")));
        }
        let beyond = self.bad_recipients.saturating_sub(PATIENT_RECIPIENTS);
        tokio::time::sleep((SLOWER * beyond).min(SLOWEST)).await;
        Turn::Say(reply)
    }

    /// DATA.
    pub(super) async fn take(&mut self, writing: Writing) -> Turn<Reply> {
        match self.opened(writing, "DATA").await {
            Ok(Opened { receiving, letter }) => {
                self.state = State::Receiving(Box::new(receiving));
                let settings = &self.door.settings;
                Turn::Take {
                    prompt: Some(Reply::plain(354, "go ahead; end with a line that holds one dot")),
                    intake: Box::new(letter),
                    framing: Framing::Dots { swallow: swallowed(settings.message_size.0), bare: settings.bare },
                    lane: Lane::Inline,
                }
            }
            Err(reply) => Turn::Say(reply),
        }
    }

    /// The first BDAT of a message.
    pub(super) async fn take_first(&mut self, writing: Writing, octets: u64, last: bool) -> Turn<Reply> {
        match self.opened(writing, "BDAT").await {
            Ok(Opened { mut receiving, letter }) => {
                receiving.shelf = (!last).then(Shelf::default);
                self.take_chunk(receiving, Box::new(letter), octets, last)
            }
            Err(reply) => self.swallow(State::Ready, octets, reply),
        }
    }

    /// Another BDAT of a message.
    pub(super) fn take_next(&mut self, mut receiving: Receiving, octets: u64, last: bool) -> Turn<Reply> {
        let letter = receiving.shelf.as_ref().and_then(|shelf| shelf.lock().take());
        let Some(letter) = letter else {
            return self.swallow(State::Ready, octets, Reply::new(451, "4.3.0", "the message is lost; send it again"));
        };
        if last {
            receiving.shelf = None;
        }
        self.take_chunk(receiving, letter, octets, last)
    }

    fn take_chunk(&mut self, receiving: Receiving, letter: Box<Letter>, octets: u64, last: bool) -> Turn<Reply> {
        let shelf = receiving.shelf.clone().unwrap_or_default();
        self.state = State::Receiving(Box::new(receiving));
        Turn::Take {
            prompt: None,
            intake: Box::new(Chunk { letter, shelf, last }),
            framing: Framing::Counted(octets),
            lane: Lane::Inline,
        }
    }

    /// More octets than would be read and forgotten: what is behind them is not waited for.
    pub(super) fn is_hopeless(&self, octets: u64) -> bool {
        let most = self.door.settings.message_size.0;
        octets > if most == 0 { LARGEST_CHUNK } else { swallowed(most) }
    }

    /// Refuses a BDAT: its octets are read and forgotten, then the reply is said and `after` goes on.
    pub(super) fn swallow(&mut self, after: State, octets: u64, reply: Reply) -> Turn<Reply> {
        self.state = State::Refusing(Box::new((after, reply)));
        Turn::Take { prompt: None, intake: Box::new(Refused), framing: Framing::Counted(octets), lane: Lane::Inline }
    }

    async fn opened(&mut self, writing: Writing, verb: &str) -> std::result::Result<Opened, Reply> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let recipients = listed(&writing.recipients);
        let sender = writing.mail.sender.as_ref().map(ToString::to_string).unwrap_or_default();
        let trace = self.trace(&id, &sender, &writing);
        let prover = self.prover(&sender);
        let (size, count) = (writing.mail.size, writing.recipients.len());
        let envelope = Envelope { id: id.clone(), sender, recipients: writing.recipients, size, proof: None };
        let since = Instant::now();
        let head = self.head(&id);
        let opened = async {
            let mut upload = self.caller.deliver(envelope).await?;
            let most = self.door.settings.message_size;
            // What is looked up stands between the trace fields: then they are put in front at the end.
            if let Some(prover) = prover {
                return Ok(Letter::new(upload, most, head).proved_by(prover(trace)));
            }
            upload.preface(trace.into()).await?;
            Ok(Letter::new(upload, most, head))
        };
        match opened.await {
            Ok(mut letter) => {
                let each = self.door.settings.lmtp.then(|| (count, Outcomes::default()));
                if let Some((_, outcomes)) = &each {
                    letter = letter.one_by_one(Arc::clone(outcomes));
                }
                let unheard = self.door.hub.unheard(&id);
                Ok(Opened { receiving: Receiving { id, recipients, unheard, each, shelf: None, since }, letter })
            }
            Err(error) => {
                let reply = Reply::refusal(Phase::Data, &error);
                self.trouble = Some(format!("its message was refused: {}", error.public()).into());
                self.note(verb, &recipients, 0, &reply, since);
                log_fault(&error);
                Err(reply)
            }
        }
    }

    /// Looks up where a stranger's message comes from, where that is asked for; it wants the trace fields.
    fn prover(&self, sender: &str) -> Option<impl FnOnce(String) -> Prover + use<>> {
        let checker = self.door.checker.clone().filter(|_| self.caller.is_guest())?;
        let claim = Claim {
            address: self.origin.peer.ip().to_canonical(),
            helo: self.hello.name.clone(),
            sender: sender.to_owned(),
            host: self.door.host(),
        };
        Some(move |trace| Prover::new(checker, claim, trace))
    }

    fn head(&self, id: &str) -> Head {
        let host = self.door.host();
        let submitted = self.door.settings.role == Role::Submission;
        let missing = submitted
            .then(|| Missing { date: format!("Date: {}\r\n", date()), id: format!("Message-ID: <{id}@{host}>\r\n") });
        Head::new(host, missing, self.door.settings.hops)
    }

    fn trace(&self, id: &str, sender: &str, writing: &Writing) -> String {
        let only_recipient = match writing.recipients.as_slice() {
            [only] => Some(only.address.as_str()),
            _ => None,
        };
        let trace = Trace {
            origin: &self.origin,
            hello: &self.hello.name,
            name: self.hello.known.as_deref(),
            speech: self.hello.speech,
            utf8: writing.mail.utf8,
            signed_in: !self.caller.is_guest(),
            host: &self.door.host(),
            id,
            sender,
            only_recipient,
        };
        let mut lines = trace.lines();
        // A box that catches everything is asked for whom each message was.
        for recipient in writing.recipients.iter().filter(|_| self.door.settings.role == Role::Catch) {
            lines.push_str(&envelope_to(&recipient.address));
        }
        lines
    }

    /// A body came, or a part of one, or not.
    pub(super) fn received(&mut self, outcome: &Result<Option<Receipt>>) -> Reply {
        let receiving = match std::mem::replace(&mut self.state, State::Ready) {
            State::Receiving(receiving) => *receiving,
            State::Refusing(refusing) => {
                let (after, reply) = *refusing;
                self.state = after;
                return reply;
            }
            _ => return Reply::new(451, "4.3.0", "no message was expected"),
        };
        if let (Ok(None), Some(_)) = (outcome, &receiving.shelf) {
            self.state = State::Receiving(Box::new(receiving));
            return Reply::new(250, "2.0.0", "taken; go on");
        }
        self.trouble = match outcome {
            Ok(_) => None,
            Err(error) => Some(format!("its message was not taken: {}", error.public()).into()),
        };
        let bytes = outcome.as_ref().ok().and_then(|receipt| receipt.as_ref()).map_or(0, |receipt| receipt.bytes);
        let reply = match &receiving.each {
            None => receiving.reply(outcome.as_ref().map(|_| ())),
            Some((count, outcomes)) => receiving.replies(*count, &outcomes.lock(), outcome.as_ref().map(|_| ())),
        };
        self.note("DATA", &receiving.recipients, bytes, &reply, receiving.since);
        // Until the reply goes out, whatever was said was said without waiting for it.
        self.early = true;
        self.unheard = outcome.is_ok().then_some(receiving.unheard);
        reply
    }
}

impl Receiving {
    /// True while another BDAT may follow.
    pub(super) fn goes_on(&self) -> bool {
        self.shelf.is_some()
    }

    fn reply(&self, outcome: std::result::Result<(), &Error>) -> Reply {
        match outcome {
            Ok(()) => Reply::new(250, "2.0.0", format!("Ok: queued as {}", self.id)),
            Err(error) => {
                if let Some(Status(status)) = error.source().and_then(|source| source.downcast_ref::<Status>()) {
                    let code = if error.kind() == Kind::Denied { 550 } else { 554 };
                    return Reply::new(code, status, error.public().to_owned());
                }
                log_fault(error);
                Reply::refusal(Phase::Data, error)
            }
        }
    }

    /// One for each recipient; what failed before the hub was asked failed for all of them.
    fn replies(&self, count: usize, each: &[Result<Receipt>], all: std::result::Result<(), &Error>) -> Reply {
        let replies = match each {
            [] => vec![self.reply(all); count],
            each => each.iter().map(|outcome| self.reply(outcome.as_ref().map(|_| ()))).collect(),
        };
        Reply::each(replies).unwrap_or_else(|| Reply::new(451, "4.3.0", "the message is lost; send it again"))
    }
}

/// After an error the rest of a message is read and forgotten up to this, so that the reply is heard and in its place.
fn swallowed(most: u64) -> u64 {
    const AT_LEAST: u64 = 1 << 20;
    most.saturating_mul(2).max(AT_LEAST)
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
