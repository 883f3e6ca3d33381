//! The session: who it is, where it stands, what was said before; one turn for each command.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::checksum::Algorithm;
use super::command::{self, Command, Type};
use super::data::Data;
use super::help::{help, speak};
use super::hint::Told;
use super::listing::Facts;
use super::page::Page;
use super::policy::Policy;
use super::reply::Reply;
use super::{Ascii, Door};
use crate::error::{Error, Kind, Result};
use crate::hub::{Caller, Receipt, TreePath};
use crate::net::{Link, Permit, Tls};
use crate::origin::Origin;
use crate::proto::dialogue::{self, Dialogue, Event, Framing, Lines, Malformed, Meanwhile, NoLane, Why};
use crate::telemetry::Access;

/// What the wire does next.
pub(super) type Turn = dialogue::Turn<Reply>;

/// One control connection.
pub struct Session {
    pub(super) door: Arc<Door>,
    pub(super) origin: Origin,
    pub(super) tls: Option<Arc<Tls>>,
    /// Taken from the link: it also counts the connections of each account.
    pub(super) permit: Permit,
    pub(super) who: Who,
    /// Wrong passwords so far.
    pub(super) wrong: u32,
    /// So many of them, and the connection is closed.
    pub(super) most_sign_ins: u32,
    /// Full path of the tree: inside the caller's top, or where a device came to by a full path.
    pub(super) cwd: TreePath,
    pub(super) ascii: bool,
    /// PROT P: data connections speak TLS.
    pub(super) protected: bool,
    /// EPSV ALL was said: no other way to open data connections any more.
    pub(super) only_epsv: bool,
    /// How the next data connection is made.
    pub(super) data: Option<Box<Data>>,
    /// What was said about the data connection of the transfer that runs.
    pub(super) told: Option<Told>,
    /// What holds for who speaks.
    pub(super) policy: Arc<Policy>,
    /// OPTS UTF8 ON was said: no code page.
    pub(super) utf8: bool,
    /// REST: where the next transfer starts.
    pub(super) offset: u64,
    /// ALLO: size of the next upload.
    pub(super) announced: Option<u64>,
    pub(super) renaming: Option<TreePath>,
    /// SITE CPFR: what is copied next.
    pub(super) copying: Option<TreePath>,
    pub(super) facts: Facts,
    /// What HASH computes.
    pub(super) hash: Algorithm,
    /// HOST: what the client believes we are called.
    pub(super) host: Option<String>,
    pub(super) running: Option<Box<Running>>,
    /// Why the conversation fails so far.
    pub(super) trouble: Option<Box<str>>,
}

/// Who speaks.
pub(super) enum Who {
    Nobody,
    Named(String),
    Signed(Caller),
}

/// The access line of an operation that runs beside the session.
struct Note {
    origin: Origin,
    account: String,
    verb: &'static str,
    path: TreePath,
}

impl Note {
    fn write(&self, begun: Instant, reply: &Reply) {
        let (path, code) = (self.path.to_string(), reply.code().to_string());
        let (origin, account, took) = (&self.origin, self.account.as_str(), begun.elapsed());
        Access { origin, account, verb: self.verb, path: &path, bytes: 0, result: &code, took }.note();
    }
}

/// A transfer on its way.
pub(super) struct Running {
    pub(super) verb: &'static str,
    pub(super) path: TreePath,
    pub(super) begun: Instant,
}

impl Session {
    pub(super) fn new(door: Arc<Door>, link: &mut Link) -> Self {
        Self {
            policy: door.policies.base(),
            door,
            origin: link.origin.clone(),
            tls: link.tls.clone(),
            permit: std::mem::replace(&mut link.permit, Permit::uncounted()),
            who: Who::Nobody,
            wrong: 0,
            most_sign_ins: link.limits.sign_ins,
            cwd: TreePath::root(),
            ascii: true,
            // Clients of implicit TLS forget PROT P.
            protected: link.origin.secure,
            only_epsv: false,
            data: None,
            told: None,
            utf8: false,
            offset: 0,
            announced: None,
            renaming: None,
            copying: None,
            facts: Facts::default(),
            hash: Algorithm::default(),
            host: None,
            running: None,
            trouble: None,
        }
    }

    /// A path as the client typed it, in the tree. `/` is the account's top, and `..` does not climb above it.
    pub(super) async fn resolve(&self, caller: &Caller, text: &str) -> Result<TreePath> {
        let top = caller.top();
        let seen = match text {
            "~" => seen(caller, &caller.start()),
            _ => TreePath::resolve(&seen(caller, &self.cwd), text)?,
        };
        if is_in_full(caller, &seen).await {
            return Ok(seen);
        }
        let full = seen.below(&TreePath::root()).map_or_else(|| top.clone(), |rel| top.with(&rel));
        if full.seen_from(&top) != seen {
            return Err(Error::new(Kind::Invalid, "the path is too long"));
        }
        Ok(full)
    }

    /// A path as the client sees it.
    pub(super) fn shown(caller: &Caller, path: &TreePath) -> String {
        seen(caller, path).to_string()
    }

    /// How file contents are framed in the current type.
    pub(super) fn framing(&self) -> Framing {
        match self.door.settings.ascii {
            Ascii::Convert if self.ascii => Framing::Ascii,
            _ => Framing::Raw,
        }
    }

    /// May a session under this policy go without TLS, or has it TLS?
    pub(super) fn may_be_plain(&self, policy: &Policy) -> bool {
        self.origin.secure || policy.plain_is_fine(self.origin.peer.ip())
    }

    /// The code page of the names this client reads and writes; `None`: UTF-8.
    pub(super) fn page(&self) -> Option<Page> {
        self.policy.page.filter(|_| !self.utf8 && matches!(self.who, Who::Signed(_)))
    }

    pub(super) fn name(&self) -> &str {
        match &self.who {
            Who::Nobody => "",
            Who::Named(name) => name,
            Who::Signed(caller) => caller.name(),
        }
    }

    /// Writes the access line of an operation and passes its reply on.
    pub(super) fn noted(&self, verb: &str, path: &TreePath, bytes: u64, begun: Instant, reply: Reply) -> Turn {
        let (path, code) = (path.to_string(), reply.code().to_string());
        let (account, took) = (self.name(), begun.elapsed());
        Access { origin: &self.origin, account, verb, path: &path, bytes, result: &code, took }.note();
        Turn::Say(reply)
    }

    /// Work during which the session hears ABOR; its access line is written when it ends.
    pub(super) fn work(
        &self,
        verb: &'static str,
        path: TreePath,
        job: impl Future<Output = Result<Reply>> + Send + 'static,
    ) -> Turn {
        let note = Note { origin: self.origin.clone(), account: self.name().to_owned(), verb, path };
        let begun = Instant::now();
        let job = async move {
            let reply = job.await.unwrap_or_else(|error| {
                log_fault(&error);
                Reply::from(&error)
            });
            note.write(begun, &reply);
            reply
        };
        Turn::Work { job: Box::pin(job), cut: Reply::new(426, "aborted") }
    }

    /// RFC 959 §4.1.1: USER forgets who it was and what it was about to do; transfer parameters stay.
    pub(super) fn forget(&mut self) {
        self.who = Who::Nobody;
        self.permit.no_account();
        self.cwd = TreePath::root();
        self.forget_data();
        self.policy = self.door.policies.base();
        self.offset = 0;
        self.announced = None;
        self.renaming = None;
        self.copying = None;
    }

    /// RFC 959 §4.1.1: as at the beginning, except that TLS stays and data stays as protected as it was.
    fn reinitialise(&mut self) {
        self.forget();
        self.ascii = true;
        self.utf8 = false;
        self.only_epsv = false;
        self.facts = Facts::default();
        self.hash = Algorithm::default();
        self.host = None;
    }

    pub(super) fn is_signed_in(&self) -> bool {
        matches!(self.who, Who::Signed(_))
    }

    /// Commands that need no sign-in.
    async fn greet(&mut self, command: Command) -> std::result::Result<Turn, Command> {
        Ok(match command {
            Command::Acct => say(202, "no account is needed"),
            Command::Auth(mechanism) => self.auth(mechanism),
            Command::Clnt(software) => {
                tracing::debug!(peer = %self.origin.peer, link = self.origin.link, software, "ftp: client");
                say(200, "noted")
            }
            Command::Feat => self.features(),
            Command::Help(about) => help(about.as_deref()),
            Command::Host(name) => self.host(name),
            Command::Lang(language) => speak(language.as_deref()),
            Command::Noop => say(200, "ok"),
            Command::OptsHash(chosen) => {
                self.hash = chosen.unwrap_or(self.hash);
                say(200, self.hash.name())
            }
            Command::OptsMlst(chosen) => {
                self.facts = Facts::chosen(&chosen);
                say(200, format!("MLST OPTS {}", self.facts.shown()))
            }
            Command::OptsUnknown => say(501, "no such option"),
            Command::OptsUtf8(on) => {
                self.utf8 = on;
                say(200, if self.page().is_none() { "UTF-8 is on" } else { "UTF-8 is off" })
            }
            Command::Pass(secret) => self.pass(&secret.0).await,
            Command::Pbsz if self.origin.secure => say(200, "PBSZ=0"),
            Command::Pbsz => say(503, "AUTH TLS first"),
            Command::Prot(level) => self.protect(level),
            Command::Quit => Turn::Close(Some(Reply::new(221, "Goodbye"))),
            Command::Refused(code) => say(code, "not offered here"),
            Command::Rein => {
                self.reinitialise();
                say(220, "start again")
            }
            Command::Syst => say(215, "UNIX Type: L8"),
            Command::User(name) => self.user(name),
            other => return Err(other),
        })
    }

    /// Commands of someone signed in.
    async fn serve(&mut self, caller: &Caller, command: Command) -> Result<Turn> {
        Ok(match command {
            Command::Abor => say(226, "nothing is running"),
            Command::Allo(size) => self.allocate(caller, size).await,
            Command::Appe(name) => self.append(caller, &name).await?,
            Command::Avbl(name) => self.available(caller, name.as_deref()).await?,
            Command::Checksum(ask, name) => self.checksum(caller, ask, name).await?,
            Command::Epsv(asked) => self.extended_passive(asked),
            Command::List(style, path) => self.list(caller, style, path.as_deref()).await?,
            Command::Mode(mode) => one_of(mode, b'S', "mode S"),
            Command::Pasv => self.passive().await,
            Command::Port(to, extended) => self.active(to, extended),
            Command::PortUnknown => say(522, "network protocol not supported, use (1,2)"),
            Command::Rest(offset) => {
                self.offset = offset;
                say(350, format!("the next transfer starts at {offset}"))
            }
            Command::Retr(name) => self.retrieve(caller, &name).await?,
            Command::Rnto(name) => match self.renaming.take() {
                Some(from) => self.rename(caller, from, &name).await?,
                None => say(503, "RNFR first"),
            },
            Command::SiteChmod(name) => {
                caller.stat(&self.resolve(caller, &name).await?).await?;
                say(200, "permissions are the server's; nothing changed")
            }
            Command::SiteCopy(from, to) => self.copy(caller, self.resolve(caller, &from).await?, &to).await?,
            Command::SiteCpfr(name) => self.copy_from(caller, &name).await?,
            Command::SiteCpto(name) => match self.copying.take() {
                Some(from) => self.copy(caller, from, &name).await?,
                None => say(503, "SITE CPFR first"),
            },
            Command::SiteHelp => help(Some("SITE")),
            Command::SiteQuota => self.quota(caller).await?,
            Command::SiteUnknown => say(504, "no such SITE command"),
            Command::Stat(None) => self.status(caller),
            Command::Stor(name) => self.store(caller, &name).await?,
            Command::Stou(name) => self.store_unique(caller, name.as_deref()).await?,
            Command::Stru(structure) => one_of(structure, b'F', "structure F"),
            Command::Type(Type::Other) => say(504, "only TYPE A and TYPE I"),
            Command::Type(kind) => {
                self.ascii = kind == Type::Ascii;
                say(200, if self.ascii { "type A" } else { "type I" })
            }
            other => return self.browse(caller, other).await,
        })
    }

    pub(super) fn status(&self, caller: &Caller) -> Turn {
        let mut lines = vec![
            format!("Signed in as {}", if caller.is_guest() { "guest" } else { caller.name() }),
            format!("In {}", Self::shown(caller, &self.cwd)),
            format!("TYPE {}, MODE S, STRU F", if self.ascii { "A" } else { "I" }),
        ];
        lines.extend(self.host.iter().map(|host| format!("As {host}")));
        if let Some(running) = &self.running {
            let path = Self::shown(caller, &running.path);
            lines.push(format!("{} {path} running for {} s", running.verb, running.begun.elapsed().as_secs()));
        }
        Turn::Say(Reply::many(211, "Status:", lines, "End"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.forget_data();
    }
}

impl Session {
    /// In the letters of this client.
    fn written(&self, turn: Turn) -> Turn {
        let Some(page) = self.page() else { return turn };
        match turn {
            Turn::Say(reply) => Turn::Say(reply.in_page(page)),
            Turn::Close(reply) => Turn::Close(reply.map(|reply| reply.in_page(page))),
            Turn::Take { prompt, intake, framing, lane } => {
                Turn::Take { prompt: prompt.map(|reply| reply.in_page(page)), intake, framing, lane }
            }
            Turn::Give { prompt, source, framing, lane } => {
                Turn::Give { prompt: prompt.map(|reply| reply.in_page(page)), source, framing, lane }
            }
            Turn::Work { job, cut } => {
                Turn::Work { job: Box::pin(async move { job.await.in_page(page) }), cut: cut.in_page(page) }
            }
            Turn::Secure(_) | Turn::Wait => turn,
        }
    }

    /// RFC 959 §4.1.3: RNFR counts for the command behind it only; REST and ALLO for the next transfer, which nothing but its own
    /// preparation may come before.
    fn drop_unfinished(&mut self, command: &Command) {
        if !matches!(command, Command::Rnto(_)) {
            self.renaming = None;
        }
        // SITE CPFR is in no RFC; where it comes from NOOP leaves it alone.
        if !matches!(command, Command::Noop | Command::SiteCpto(_)) {
            self.copying = None;
        }
        if command.ends_preparation() {
            (self.offset, self.announced) = (0, None);
        }
    }

    async fn decide(&mut self, command: Command) -> Turn {
        self.drop_unfinished(&command);
        let command = match self.greet(command).await {
            Ok(turn) => return turn,
            Err(command) => command,
        };
        let Who::Signed(caller) = &self.who else { return say(530, "sign in with USER and PASS first") };
        let caller = caller.clone();
        self.serve(&caller, command).await.unwrap_or_else(|error| {
            log_fault(&error);
            Turn::Say(Reply::from(&error))
        })
    }

    fn respond(&mut self, event: Event) -> Turn {
        match event {
            Event::Opened => say(220, self.door.settings.banner.clone()),
            Event::Malformed(Malformed::Foreign(language)) => {
                tracing::info!(peer = %self.origin.peer, link = self.origin.link, language, "not FTP; closed");
                Turn::Close((language != "TLS").then(|| Reply::new(500, "this is FTP")))
            }
            Event::Malformed(malformed) => {
                (self.renaming, self.copying) = (None, None);
                match malformed {
                    Malformed::Syntax(words) => say(501, words),
                    Malformed::TooLong => say(500, "the line is too long"),
                    _ => say(500, "unknown command"),
                }
            }
            Event::Secured => {
                // RFC 4217 §4: whoever signed in before did so in the clear.
                self.forget();
                self.utf8 = false;
                Turn::Wait
            }
            Event::Received(bytes, outcome) => self.received(bytes, outcome.and_then(whole)),
            Event::Sent(bytes, outcome) => self.sent(bytes, outcome),
            Event::Parting(why) => Turn::Close(Some(match why {
                Why::Errors => Reply::new(421, "too many wrong commands, closing"),
                Why::Idle => Reply::new(421, "nothing was said for too long, closing"),
                Why::Revoked => Reply::new(421, "your sign-in has ended, closing"),
                Why::Shutdown => Reply::new(421, "the server is stopping, come back soon"),
                Why::Total => Reply::new(421, "the time of this connection is over"),
            })),
        }
    }
}

impl Dialogue for Session {
    type Command = Command;
    type Reply = Reply;
    // Devices send bare LF now and then; a path may be 4096 bytes.
    const LINES: Lines = Lines { longest: 4_352, bare_lf: true, telnet: true };

    fn parse(&self, line: &[u8]) -> std::result::Result<Command, Malformed> {
        let line = command::bare(line);
        match self.page() {
            Some(page) => command::parse(page.read(line).as_bytes()),
            None => command::parse(line),
        }
    }

    async fn answer(&mut self, command: Command) -> Turn {
        let weighed = command.weighed();
        let turn = self.decide(command).await;
        self.weigh(weighed, &turn);
        self.written(turn)
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn account(&self) -> &str {
        self.name()
    }

    fn forgives(&self) -> bool {
        self.is_signed_in()
    }

    fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    fn shown(&self, line: &[u8]) -> usize {
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let verb = line.get(..end).unwrap_or_default();
        let plain = (3..=4).contains(&end) && verb.iter().all(u8::is_ascii_alphabetic);
        let secret = [b"PASS", b"ACCT"].iter().any(|word| verb.eq_ignore_ascii_case(*word));
        if plain && !secret { line.len() } else { end.min(4) }
    }

    async fn react(&mut self, event: Event) -> Turn {
        let turn = self.respond(event);
        self.written(turn)
    }

    fn during_transfer(&self, command: &Command) -> Meanwhile {
        match command {
            Command::Abor => Meanwhile::Abort,
            Command::Noop | Command::Stat(None) => Meanwhile::Answer,
            _ => Meanwhile::Wait,
        }
    }

    fn renew(&mut self, origin: &Origin) {
        self.origin = origin.clone();
    }

    fn ended(&self) -> Option<&CancellationToken> {
        match &self.who {
            Who::Signed(caller) => caller.ended(),
            Who::Named(_) | Who::Nobody => None,
        }
    }

    fn settled(&self) -> bool {
        matches!(self.who, Who::Signed(_))
    }
}

/// A path as the client sees it: from its top, or from the root of the tree where a device named it so.
fn seen(caller: &Caller, path: &TreePath) -> TreePath {
    let top = caller.top();
    if path.is_in(&top) { path.seen_from(&top) } else { path.clone() }
}

/// A device sees its own folder as `/`. A panel may hold the full path all the same: it is taken as one where nothing of its own folder
/// has that name.
async fn is_in_full(caller: &Caller, seen: &TreePath) -> bool {
    let top = caller.top();
    if top.is_root() || !caller.may_name_in_full(seen) {
        return false;
    }
    let Some(own) = seen.parts().next().and_then(|first| top.join(first).ok()) else { return false };
    caller.stat(&own).await.is_err_and(|error| error.kind() == Kind::NotFound)
}

/// What a peer cannot learn from the reply.
pub(super) fn log_fault(error: &Error) {
    let no_lane = std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<NoLane>);
    let ours = matches!(error.kind(), Kind::Corrupt | Kind::Full | Kind::Internal | Kind::Unavailable);
    if ours && !no_lane {
        tracing::warn!(detail = error.detail(), "ftp: a command failed");
    }
}

pub(super) fn say(code: u16, text: impl Into<std::borrow::Cow<'static, str>>) -> Turn {
    Turn::Say(Reply::new(code, text))
}

fn one_of(asked: u8, known: u8, words: &'static str) -> Turn {
    if asked == known { say(200, words) } else { say(504, format!("only {words}")) }
}

/// Every upload here is one body.
fn whole(receipt: Option<Receipt>) -> Result<Receipt> {
    receipt.ok_or_else(|| Error::new(Kind::Internal, "an upload ended without a receipt"))
}
