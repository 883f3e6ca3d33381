//! Logs: `tracing` to rotating files (through tracing-appender's writer thread) and to stderr or the journal.
//!
//! `stoa.log` holds what happened to the daemon, `access.log` one line for each operation; sign-ins are in both. Writing never
//! blocks a request: a queue that is full loses the line and counts it.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{Metadata, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::ledger::{self, Ledger, Others, Writer};
use super::line::{SpanFields, Style};
use super::roll::{Plan, Roller, Signals};
use super::settings::{ACCESS, LOGIN, LogSettings};
use crate::error::{Error, Kind, Result};

/// Lines that may wait for the disk, for each file.
const QUEUE: usize = 32_768;

/// Keeps the writer threads alive; dropping it flushes.
#[derive(Default)]
pub struct Guard {
    ledger: Option<Writer>,
    writers: Vec<WorkerGuard>,
}

impl Guard {
    /// Writer threads running.
    #[must_use]
    pub fn writers(&self) -> usize {
        self.writers.len() + usize::from(self.ledger.is_some())
    }
}

/// What the daemon may change while it runs.
struct Control {
    level: reload::Handle<EnvFilter, Registry>,
    access: bool,
    ledger: Option<Arc<Ledger>>,
    files: Vec<Arc<Signals>>,
    queues: Vec<ErrorCounter>,
}

static CONTROL: Mutex<Option<Control>> = Mutex::new(None);

/// Sets the process's log up, once. Panics are logged too.
///
/// # Errors
/// `Invalid`: a level or format that does not exist. `Unavailable`: a folder that cannot be written.
pub fn init(settings: &LogSettings) -> Result<Guard> {
    let (subscriber, control, guard) = build(settings)?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| Error::new(Kind::Internal, "the log was set up twice in one process"))?;
    if let Some(ledger) = &control.ledger {
        ledger::install(ledger);
    }
    *CONTROL.lock() = Some(control);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = panic.payload_as_str().unwrap_or("no words");
        tracing::error!(target: "stoa::panic", at, "a fault of ours: {words}");
        before(panic);
    }));
    Ok(guard)
}

/// The same log for one thread while `work` runs, for tests and tools.
///
/// # Errors
/// As [`init`].
pub fn within<T>(settings: &LogSettings, work: impl FnOnce() -> T) -> Result<T> {
    let (subscriber, control, guard) = build(settings)?;
    let result = ledger::within(control.ledger, || tracing::subscriber::with_default(subscriber, work));
    drop(guard);
    Ok(result)
}

/// Another level or filter from now on.
///
/// # Errors
/// `Invalid`: the old one stays.
pub fn set_level(level: &str) -> Result<()> {
    let control = CONTROL.lock();
    let Some(control) = control.as_ref() else { return Ok(()) };
    let filter = filter(level, control.access)?;
    if let Some(ledger) = &control.ledger {
        ledger.set(wanted(level));
    }
    control.level.reload(filter).map_err(Error::internal)
}

/// Is this a level or a filter? A word alone must be a level: as the name of a part it would silence everything else.
///
/// # Errors
/// What is wrong with which part.
pub fn check_level(text: &str) -> std::result::Result<(), String> {
    let is_level = |word: &str| {
        matches!(word.to_ascii_lowercase().as_str(), "off" | "error" | "warn" | "info" | "debug" | "trace")
    };
    for part in text.split(',').map(str::trim) {
        let word = part.rsplit_once('=').map_or(part, |(_, level)| level.trim());
        if !is_level(word) {
            return Err(format!("`{part}` is not a level"));
        }
    }
    EnvFilter::builder().parse(text).map(drop).map_err(|error| format!("`{text}` is not a filter: {error}"))
}

/// Opens the log files again: somebody moved them (SIGUSR1).
pub fn reopen() {
    if let Some(control) = CONTROL.lock().as_ref() {
        control.files.iter().for_each(|file| file.reopen());
    }
}

/// Lines lost since start.
#[must_use]
pub fn dropped() -> u64 {
    CONTROL.lock().as_ref().map_or(0, |control| {
        let queued: u64 = control.queues.iter().map(|queue| queue.dropped_lines() as u64).sum();
        let unwritten: u64 = control.files.iter().map(|file| file.dropped()).sum();
        queued + unwritten + control.ledger.as_ref().map_or(0, |ledger| ledger.lost())
    })
}

type Boxed = Box<dyn Layer<Leveled> + Send + Sync>;
type Leveled = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

fn build(settings: &LogSettings) -> Result<(impl Subscriber + Send + Sync + use<>, Control, Guard)> {
    let json = match settings.format.as_str() {
        "json" => true,
        "text" => false,
        other => {
            return Err(Error::new(
                Kind::Invalid,
                format!("[log] format = `{other}` is unknown; use `text` or `json`"),
            ));
        }
    };
    let (level, handle) = reload::Layer::new(filter(&settings.level, settings.access)?);
    let (files, queues) = (Vec::new(), Vec::new());
    let mut control = Control { level: handle, access: settings.access, ledger: None, files, queues };
    let mut guard = Guard::default();
    let mut layers: Vec<Boxed> = vec![stderr(settings.folder.is_empty())];
    if !settings.folder.is_empty() {
        let (roller, signals) = file(settings, "stoa.log")?;
        control.files.push(signals);
        let (own, flusher) =
            NonBlockingBuilder::default().buffered_lines_limit(QUEUE).thread_name("log-stoa.log").finish(roller);
        control.queues.push(own.error_counter());
        guard.writers.push(flusher);
        layers.push(layer(json, own).with_filter(filter_fn(|meta| meta.target() != ACCESS)).boxed());
        if settings.access {
            let (roller, signals) = file(settings, "access.log")?;
            control.files.push(signals);
            let writer = Ledger::start(json, wanted(&settings.level), roller).map_err(Error::internal)?;
            let others = Others(writer.ledger().clone());
            control.ledger = Some(writer.ledger().clone());
            guard.ledger = Some(writer);
            layers.push(layer(json, others).with_filter(filter_fn(spoken_of_peers)).boxed());
        }
    }
    Ok((tracing_subscriber::registry().with(level).with(layers), control, guard))
}

/// Sign-ins, and spans, whose fields stand on their lines. Access lines take a way of their own.
fn spoken_of_peers(meta: &Metadata<'_>) -> bool {
    meta.is_span() || meta.target() == LOGIN
}

/// Does a filter let access lines pass?
fn wanted(level: &str) -> bool {
    let named = level.split(',').filter_map(|part| part.split_once('='));
    let mut set = named.filter(|(name, _)| name.trim() == ACCESS).map(|(_, level)| level.trim().to_ascii_lowercase());
    set.next_back().is_none_or(|level| !matches!(level.as_str(), "off" | "error" | "warn"))
}

/// The level holds for everything but access and sign-in lines, which have a switch of their own.
fn filter(level: &str, access: bool) -> Result<EnvFilter> {
    let mut text = level.trim().to_owned();
    let named = |text: &str, target: &str| {
        text.split(',').any(|part| part.split_once('=').is_some_and(|(name, _)| name.trim() == target))
    };
    if !named(&text, ACCESS) {
        text.push_str(if access { ",access=info" } else { ",access=off" });
    }
    if !named(&text, LOGIN) {
        text.push_str(",login=info");
    }
    EnvFilter::builder().parse(text.trim_start_matches(',')).map_err(|error| {
        Error::new(
            Kind::Invalid,
            format!(
                "[log] level = `{level}` is not understood ({error}); use error, warn, info, debug or trace, or a filter like `info,stoa::net=debug`"
            ),
        )
    })
}

fn stderr(with_access: bool) -> Boxed {
    let style = if journal() { Style::Journal } else { Style::Terminal };
    let chosen = filter_fn(move |meta| with_access || meta.target() != ACCESS);
    fmt::layer().fmt_fields(SpanFields).event_format(style).with_writer(std::io::stderr).with_filter(chosen).boxed()
}

/// systemd.exec(5): `JOURNAL_STREAM` holds device and inode of the journal's socket; stderr may have been turned elsewhere since.
fn journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

fn layer<S, W>(json: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    if json {
        fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer).boxed()
    } else {
        fmt::layer().fmt_fields(SpanFields).event_format(Style::Fields).with_writer(writer).boxed()
    }
}

fn file(settings: &LogSettings, name: &str) -> Result<(Roller, Arc<Signals>)> {
    let folder = Path::new(&settings.folder);
    let plan = Plan { rotate: settings.rotate, size: settings.size.0, keep: settings.keep };
    let signals = Arc::new(Signals::default());
    let roller = Roller::open(folder, name, plan, Arc::clone(&signals)).map_err(|error| {
        Error::new(
            Kind::Unavailable,
            format!("[log] folder = `{}`: cannot write {name} there: {error}; make the folder writable or leave the key empty", settings.folder),
        )
        .with(error)
    })?;
    Ok((roller, signals))
}
