//! The driver of every line protocol: reads lines, asks the dialogue, does its turns. Deadlines, line bounds, pipelining, the STARTTLS purge, drain and transfers exist here once. An idle connection holds its dialogue
//! and a small line buffer: everything that is not waiting for a line is boxed.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroize;

use super::beside::{Ending, give_at_once, give_beside, take_beside};
use super::bounded::{Overdue, bounded, once};
use super::carry::{self, Pace, Taken, given};
use super::dialogue::{Dialogue, Encode, Event, Framing, Intake, Lane, Left, Malformed, Meanwhile, Source, Turn, Why};
use super::line::{Found, LineBuffer};
use super::waits::{Alone, LINGER, NEVER, after, end_of, read_some, sign_in_ended};
use crate::error::{Error, Kind, Result};
use crate::net::Link;
use crate::net::stream::End;
use crate::telemetry::Record;

/// Replies to pipelined commands are sent together up to this many bytes.
const TOGETHER: usize = 16 << 10;
/// Commands kept while bytes flow on a side lane; more wait in the kernel.
const WAITING: usize = 8;
/// A body above this may have been cut by the end of its client.
const LARGE_BODY: u64 = 64 << 10;
/// How long after a large body the end of the command connection is waited for.
const HANGUP: Duration = Duration::from_millis(10);
const TLS_FIRST: &str = "it began with a TLS handshake where TLS comes later: set it to STARTTLS (explicit TLS), or give it the port with TLS from the first byte";
/// How long the refusal of a reply by a peer that has closed its connection is waited for.
const ECHO: Duration = Duration::from_millis(200);

/// Drives one conversation to its end.
///
/// # Errors
/// Only those of the connection itself; everything a peer says is answered.
// Not an `async fn`: its arguments would stay in the future beside the driver they were moved into.
pub fn converse<D: Dialogue>(talk: D, link: Link) -> impl Future<Output = io::Result<()>> + Send {
    let mut drive = Drive::new(talk, link);
    async move {
        let result = drive.run().await;
        drive.file();
        result
    }
}

/// What came next.
enum Heard<C> {
    Command(C),
    Malformed(Malformed),
    Part(Why),
    Gone,
}

struct Drive<D: Dialogue> {
    talk: D,
    link: Link,
    lines: LineBuffer,
    output: BytesMut,
    /// Heard while bytes flowed on a side lane.
    waiting: VecDeque<Heard<D::Command>>,
    /// The peer will say nothing more.
    gone: bool,
    /// It ended this connection before the side lane it was sending on.
    gone_early: bool,
    errors: u32,
    opened: Instant,
    /// When the last command came.
    heard: Instant,
    /// Nothing was heard yet.
    fresh: bool,
    /// What was said, in case it fails.
    record: Record,
    /// Why it failed, where that is seen here and not in the dialogue.
    trouble: Option<String>,
}

impl<D: Dialogue> Drive<D> {
    fn new(talk: D, link: Link) -> Self {
        let now = Instant::now();
        Self {
            talk,
            link,
            lines: LineBuffer::default(),
            output: BytesMut::new(),
            waiting: VecDeque::new(),
            gone: false,
            gone_early: false,
            errors: 0,
            opened: now,
            heard: now,
            fresh: true,
            record: Record::default(),
            trouble: None,
        }
    }

    async fn run(&mut self) -> io::Result<()> {
        let mut open = Box::pin(self.step(None)).await?;
        while open {
            // All that an idle connection waits in: whatever else it does is boxed, and gone by then.
            let heard = self.hear().await?;
            open = match Box::pin(self.step(Some(heard))).await {
                Err(error) if Overdue::is(&error) => return Box::pin(self.part(Why::Shutdown)).await,
                done => done?,
            };
        }
        Ok(())
    }

    /// From what was heard (nothing: the connection is open) to the next wait; false when the connection is closed.
    async fn step(&mut self, heard: Option<Heard<D::Command>>) -> io::Result<bool> {
        let mut turn = match heard {
            None => self.react(Event::Opened).await?,
            Some(Heard::Command(command)) => self.answer(command).await?,
            Some(Heard::Malformed(malformed)) => match self.blame(&malformed) {
                true => return self.part(Why::Errors).await.map(|()| false),
                false => self.react(Event::Malformed(malformed)).await?,
            },
            Some(Heard::Part(why)) => return self.part(why).await.map(|()| false),
            Some(Heard::Gone) => return self.left().await.map(|()| false),
        };
        loop {
            turn = match turn {
                Turn::Wait => return Ok(true),
                Turn::Say(reply) => {
                    self.say(&reply);
                    Turn::Wait
                }
                other => match Box::pin(self.turn(other)).await? {
                    Some(turn) => turn,
                    None => return Ok(false),
                },
            };
        }
    }

    /// The turns that do more than speak; `None` when the connection is closed.
    async fn turn(&mut self, turn: Turn<D::Reply>) -> io::Result<Option<Turn<D::Reply>>> {
        let (event, lost) = match turn {
            Turn::Secure(reply) => return self.secure(reply).await.map(Some),
            Turn::Close(reply) => return self.close(reply).await.map(|()| None),
            Turn::Take { prompt, intake, framing, lane } => self.take(prompt, intake, framing, lane).await?,
            Turn::Give { prompt, source, framing, lane } => self.give(prompt, source, framing, lane).await?,
            Turn::Work { job, cut } => return self.work(job, cut).await.map(Some),
            Turn::Say(_) | Turn::Wait => return Ok(Some(turn)),
        };
        // A body sent in part leaves no place for a reply.
        let silent = lost && matches!(event, Event::Sent(..));
        if lost && !silent && self.has_ended() {
            self.react(event).await?;
            return self.part(Why::Revoked).await.map(|()| None);
        }
        match self.react(event).await? {
            Turn::Say(reply) if lost && !silent => self.close(Some(reply)).await.map(|()| None),
            _ if lost => self.close(None).await.map(|()| None),
            turn => Ok(Some(turn)),
        }
    }

    fn answer(&mut self, command: D::Command) -> impl Future<Output = io::Result<Turn<D::Reply>>> + Send {
        if self.talk.forgives() {
            self.errors = 0;
        }
        bounded(Box::pin(self.talk.answer(command)), &self.link.stop, &self.link.limits)
    }

    fn react(&mut self, event: Event) -> impl Future<Output = io::Result<Turn<D::Reply>>> + Send {
        bounded(Box::pin(self.talk.react(event)), &self.link.stop, &self.link.limits)
    }

    fn say(&mut self, reply: &D::Reply) {
        let before = self.output.len();
        reply.encode(&mut self.output);
        self.record.said(self.output.get(before..).unwrap_or_default());
    }

    /// A conversation that failed goes into the book.
    fn file(&self) {
        if let Some(why) = self.trouble.as_deref().or_else(|| self.talk.trouble()) {
            let origin = self.talk.origin().unwrap_or(&self.link.origin);
            self.record.file(origin, self.talk.account(), why);
        }
    }

    /// Counts a malformed command; true when it was one too many.
    fn blame(&mut self, malformed: &Malformed) -> bool {
        match malformed {
            Malformed::Foreign("TLS") => self.trouble = Some(TLS_FIRST.into()),
            Malformed::Blank => return false,
            Malformed::Foreign(what) => self.trouble = Some(format!("it speaks something else: {what}")),
            _ => {}
        }
        self.errors = self.errors.saturating_add(1);
        self.link.limits.errors > 0 && self.errors > self.link.limits.errors
    }

    /// The sign-in of this conversation has ended.
    fn has_ended(&self) -> bool {
        self.talk.ended().is_some_and(CancellationToken::is_cancelled)
    }

    /// The next whole line that came already, parsed.
    fn next_line(&mut self) -> Option<Heard<D::Command>> {
        if self.fresh && self.lines.is_tls_hello() {
            self.lines.forget();
            return Some(Heard::Malformed(Malformed::Foreign("TLS")));
        }
        let heard = match self.lines.next(D::LINES) {
            Found::Nothing => return None,
            Found::TooLong => Heard::Malformed(Malformed::TooLong),
            Found::Line(mut line) => match self.parse_once(&mut line) {
                Ok(command) if !self.lines.is_empty() && self.talk.must_wait(&command) => {
                    Heard::Malformed(Malformed::Early)
                }
                Ok(command) => Heard::Command(command),
                Err(malformed) => Heard::Malformed(malformed),
            },
        };
        self.fresh = false;
        self.heard = Instant::now();
        Some(heard)
    }

    /// Parses a line and wipes it: it may have held a password.
    fn parse_once(&mut self, line: &mut [u8]) -> std::result::Result<D::Command, Malformed> {
        let parsed = self.parse(line);
        line.zeroize();
        parsed
    }

    fn parse(&mut self, line: &[u8]) -> std::result::Result<D::Command, Malformed> {
        self.heard = Instant::now();
        let shown = self.talk.shown(line).min(line.len());
        self.record.heard(line.get(..shown).unwrap_or_default(), shown < line.len(), self.heard.into_std());
        self.talk.parse(line)
    }

    /// Waits for the next line; replies go out when there is none to be answered together with them.
    async fn hear(&mut self) -> io::Result<Heard<D::Command>> {
        loop {
            if self.link.stop.is_cancelled() {
                return Ok(Heard::Part(Why::Shutdown));
            }
            if self.has_ended() {
                return Ok(Heard::Part(Why::Revoked));
            }
            if self.output.len() >= TOGETHER {
                self.flush().await?;
            }
            if let Some(heard) = self.waiting.pop_front() {
                return Ok(heard);
            }
            if let Some(heard) = self.next_line() {
                return Ok(heard);
            }
            self.flush().await?;
            if self.gone {
                return Ok(Heard::Gone);
            }
            let (deadline, why) = self.deadline();
            tokio::select! {
                biased;
                read = read_some(&mut self.link.stream, &mut self.lines, D::LINES.telnet) => {
                    // TLS may end without saying so.
                    let cut = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
                    self.gone = cut || read? == 0;
                }
                () = self.link.stop.cancelled() => {}
                () = end_of(self.talk.ended()) => {}
                () = sleep_until(deadline) => return Ok(Heard::Part(why)),
            }
        }
    }

    /// When this wait is over, and for what reason.
    fn deadline(&self) -> (Instant, Why) {
        let limits = &self.link.limits;
        let quiet = match self.talk.settled() {
            true => after(self.heard, limits.idle.0),
            false => after(self.opened, limits.greeting.0).min(after(self.heard, limits.idle.0)),
        };
        let total = after(self.opened, limits.total.0);
        if total < quiet { (total, Why::Total) } else { (quiet, Why::Idle) }
    }

    /// How long one step of the peer may take.
    fn patience(&self) -> Duration {
        let stall = self.link.limits.stall.0;
        if stall.is_zero() { NEVER } else { stall }
    }

    fn pace(&self) -> Pace {
        let total = self.link.limits.total.0;
        Pace::new(&self.link.limits, (!total.is_zero()).then(|| self.opened + total))
    }

    /// Sends the replies that are due. A peer that does not read them is not waited for longer than a stalled transfer.
    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let bound = self.patience();
        if self.talk.is_unheard() {
            let early = !self.lines.is_empty() || self.link.stream.has_input();
            self.talk.replying(early);
        }
        let (stream, output) = (&mut self.link.stream, &mut self.output);
        let sending = async {
            stream.write_all(output).await?;
            stream.flush().await
        };
        timeout(bound, sending).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.output = BytesMut::new();
        Ok(())
    }

    /// The peer has closed its side. One that closed both without reading refuses what was sent to it.
    async fn left(&mut self) -> io::Result<()> {
        if self.talk.is_unheard() {
            if self.link.stream.is_socket() {
                tokio::time::sleep(ECHO).await;
            }
            self.talk.left(!self.link.stream.is_reset());
        }
        Ok(())
    }

    /// RFC 3207 §6, RFC 4217: nothing said in the clear may be heard after the handshake.
    async fn secure(&mut self, reply: D::Reply) -> io::Result<Turn<D::Reply>> {
        self.say(&reply);
        self.flush().await?;
        self.lines.forget();
        self.waiting.clear();
        let host = self.talk.host().map(str::to_owned);
        if let Err(error) = self.link.secure_as(host.as_deref()).await {
            self.trouble = Some(format!("it asked for TLS, and then the handshake failed: {error}"));
            return Err(error);
        }
        self.talk.renew(&self.link.origin);
        self.react(Event::Secured).await
    }

    async fn part(&mut self, why: Why) -> io::Result<()> {
        match why {
            Why::Errors => {
                self.trouble = Some("it said too much that is no command; does it speak this language at all?".into());
            }
            Why::Idle if !self.talk.settled() => {
                self.trouble = Some("it connected, and then said nothing that could be used".into());
            }
            Why::Idle | Why::Revoked | Why::Shutdown | Why::Total => {}
        }
        let reply = match self.react(Event::Parting(why)).await? {
            Turn::Say(reply) | Turn::Close(Some(reply)) => Some(reply),
            _ => None,
        };
        Box::pin(self.close(reply)).await
    }

    /// Sends what is due and closes without a reset: an unread command would make the kernel throw the last reply away.
    async fn close(&mut self, reply: Option<D::Reply>) -> io::Result<()> {
        if let Some(reply) = reply {
            self.say(&reply);
        }
        self.flush().await?;
        let stream = &mut self.link.stream;
        let lingering = async {
            stream.shutdown().await?;
            let mut sink = [0; 256];
            while stream.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        match timeout(LINGER, lingering).await {
            Ok(Ok(())) => Box::pin(self.left()).await,
            _ => Ok(()),
        }
    }

    /// Says what comes before a body.
    async fn begin(&mut self, prompt: Option<D::Reply>) -> io::Result<Pace> {
        if let Some(prompt) = prompt {
            self.say(&prompt);
        }
        self.flush().await?;
        Ok(self.pace())
    }

    /// Does a [`Turn::Take`]; true when the connection lost its place.
    async fn take(
        &mut self,
        prompt: Option<D::Reply>,
        mut intake: Box<dyn Intake>,
        framing: Framing,
        lane: Lane,
    ) -> io::Result<(Event, bool)> {
        let mut pace = self.begin(prompt).await?;
        let (outcome, lost) = match lane {
            Lane::Inline => {
                let early = self.lines.take_rest();
                let taking = carry::take_in(&mut self.link.stream, early, framing, &mut *intake, &mut pace);
                let taken = tokio::select! {
                    biased;
                    taken = taking => taken,
                    () = end_of(self.talk.ended()) => {
                        Taken { outcome: Err(sign_in_ended()), rest: BytesMut::new(), lost: true }
                    }
                };
                self.lines.give_back(taken.rest);
                self.heard = Instant::now();
                (taken.outcome, taken.lost)
            }
            Lane::Side(lane) => {
                let end = Arc::new(OnceLock::new());
                let drained = carry::drained(self.link.stop.clone(), intake.is_resumable());
                let body = take_beside(lane, framing, &mut *intake, &mut pace, end.clone(), drained);
                let outcome = self.beside(Box::pin(body), Alone::GoOn, &|| end.get().is_some_and(End::came)).await?;
                drop(end);
                let whole = match outcome {
                    Ok(Ending::Said) => Ok(()),
                    Ok(Ending::Came) => {
                        let bytes = pace.moved_in_all();
                        let before = intake.stands(bytes, Left::Before);
                        let behind = intake.stands(bytes, Left::Behind);
                        self.whole(bytes, before, behind).await
                    }
                    Err(error) => Err(error),
                };
                (whole, false)
            }
        };
        let received = match outcome {
            Ok(()) => bounded(intake.commit(), &self.link.stop, &self.link.limits).await?,
            Err(error) => {
                bounded(intake.abandon(), &self.link.stop, &self.link.limits).await?;
                Err(error)
            }
        };
        Ok((Event::Received(pace.moved_in_all(), received), lost))
    }

    /// Does a [`Turn::Give`]; true when the connection lost its place.
    async fn give(
        &mut self,
        prompt: Option<D::Reply>,
        mut source: Source,
        framing: Framing,
        mut lane: Lane,
    ) -> io::Result<(Event, bool)> {
        let early = match &mut lane {
            Lane::Side(lane) => give_at_once(lane, &source, framing),
            Lane::Inline => 0,
        };
        if early > 0 && source.skip(early) {
            // Both replies go out together.
            if let Some(prompt) = &prompt {
                self.say(prompt);
            }
            self.heard = Instant::now();
            return Ok((Event::Sent(early, Ok(())), false));
        }
        let mut pace = self.begin(prompt).await?;
        pace.count(early);
        match lane {
            Lane::Inline => {
                let giving = carry::give_out(&mut self.link.stream, source, framing, &mut pace);
                let sent = tokio::select! {
                    biased;
                    sent = giving => sent,
                    () = end_of(self.talk.ended()) => Err(sign_in_ended()),
                };
                self.heard = Instant::now();
                let lost = sent.is_err();
                Ok((given(sent, &pace), lost))
            }
            Lane::Side(lane) => {
                let body = give_beside(lane, source, framing, &mut pace);
                let sent = self.beside(Box::pin(body), Alone::GoOn, &|| false).await?;
                Ok((given(sent.map(|rest| early + rest), &pace), false))
            }
        }
    }

    /// Does a [`Turn::Work`].
    async fn work(
        &mut self,
        job: Pin<Box<dyn Future<Output = D::Reply> + Send>>,
        cut: D::Reply,
    ) -> io::Result<Turn<D::Reply>> {
        self.flush().await?;
        let longest = self.link.limits.work.0;
        let late = |_| Error::new(Kind::Cancelled, "the work took too long");
        let job = async { timeout(longest, job).await.map_err(late) };
        let done = self.beside(Box::pin(job), Alone::Stop, &|| false).await?;
        Ok(Turn::Say(done.unwrap_or(cut)))
    }

    /// Lets bytes flow on a side lane, or work go on, while commands are still heard. `at_end`: all the lane will ever bring has come.
    async fn beside<T>(
        &mut self,
        mut body: impl Future<Output = Result<T>> + Unpin,
        alone: Alone,
        at_end: &(dyn Fn() -> bool + Sync),
    ) -> io::Result<Result<T>> {
        loop {
            if self.gone && alone == Alone::Stop {
                return Ok(Err(Error::new(Kind::Cancelled, "the client hung up")));
            }
            while self.waiting.len() < WAITING {
                let Some(heard) = self.next_line() else { break };
                match heard {
                    Heard::Command(command) => match self.talk.during_transfer(&command) {
                        Meanwhile::Abort => {
                            self.waiting.push_back(Heard::Command(command));
                            return Ok(Err(Error::new(Kind::Cancelled, "transfer aborted")));
                        }
                        // Replies keep the order of their commands: behind one that waits, all wait.
                        Meanwhile::Answer if self.waiting.is_empty() => {
                            // Only a reply makes sense here; a dialogue that wants more classifies the command as `Wait`.
                            if let Turn::Say(reply) = self.answer(command).await? {
                                self.say(&reply);
                                self.flush().await?;
                            }
                        }
                        Meanwhile::Answer | Meanwhile::Wait => self.waiting.push_back(Heard::Command(command)),
                    },
                    other => self.waiting.push_back(other),
                }
            }
            let listen = self.waiting.len() < WAITING && !self.gone;
            tokio::select! {
                biased;
                done = &mut body => {
                    self.heard = Instant::now();
                    return Ok(done);
                }
                read = read_some(&mut self.link.stream, &mut self.lines, D::LINES.telnet), if listen => {
                    self.gone = !matches!(read, Ok(more) if more > 0);
                    self.gone_early = self.gone && !at_end();
                }
                () = end_of(self.talk.ended()) => return Ok(Err(sign_in_ended())),
            }
        }
    }

    /// An upload over a side lane ends when that lane ends, which is also how it looks when the client was killed: its kernel closes both
    /// connections. So when the client hung up without a word, the one who took the bytes decides whether they are all.
    async fn whole(&mut self, bytes: u64, stands_before: bool, stands_behind: bool) -> Result<()> {
        let stands = match self.gone_early && self.waiting.is_empty() {
            true => stands_before,
            // Whatever became of the client, it stands: nothing to wait for.
            false if stands_behind => return Ok(()),
            false => {
                self.look(bytes).await;
                stands_behind
            }
        };
        if self.gone && self.waiting.is_empty() && !stands {
            return Err(Error::new(Kind::Cancelled, "the client hung up before the upload was acknowledged"));
        }
        Ok(())
    }

    /// Learns whether the peer is still there after an upload of so many bytes. A killed client's connections end one after the other,
    /// so behind a large body the other one gets a moment to follow; a small one came whole in one piece and need not wait.
    async fn look(&mut self, bytes: u64) {
        let grace = if bytes > LARGE_BODY { HANGUP } else { Duration::ZERO };
        let until = Instant::now() + grace;
        while !self.gone && self.waiting.is_empty() {
            if let Some(heard) = self.next_line() {
                self.waiting.push_back(heard);
            } else if self.link.stream.has_hung_up() {
                self.gone = true;
            } else {
                let reading = read_some(&mut self.link.stream, &mut self.lines, D::LINES.telnet);
                // A deadline that has passed still takes the timer a tick, which is longer than a small file takes in all.
                let read = if grace.is_zero() { once(reading).await } else { timeout_at(until, reading).await.ok() };
                match read {
                    Some(read) => self.gone = !matches!(read, Ok(more) if more > 0),
                    None => return,
                }
            }
        }
    }
}
