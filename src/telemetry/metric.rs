//! Metrics: a bounded set with labels from fixed sets, in OpenMetrics text.
//!
//! Every series exists from the start and is reached by index, so counting is one atomic addition, and nothing a peer
//! sends can make a new series.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::log;

/// Doors with series of their own; any other is counted as `other`.
const DOORS: [&str; 11] =
    ["admin", "cli", "dav", "ftp", "http", "imap", "outside", "pop3", "smtp", "submission", "other"];
/// Classes of a door's reply.
const RESULTS: [&str; 7] = ["ok", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];
/// Ways a sign-in ends.
const LOGINS: [&str; 5] = ["ok", "refused", "throttled", "unavailable", "other"];
/// Reasons a data connection (FTP) did not come to be.
const DATA_FAILURES: [&str; 7] = ["nobody", "not_resumed", "ports", "refused", "stranger", "tls", "other"];
/// Reasons a connection got no place.
const REFUSALS: [&str; 5] = ["account", "address", "descriptors", "total", "other"];

/// Labels known at compile time.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The series of one door.
struct Door {
    links: Gauge,
    links_total: Counter,
    refused: [Counter; REFUSALS.len()],
    panics: Counter,
    operations: [Counter; RESULTS.len()],
    received: Counter,
    sent: Counter,
}

struct Metrics {
    registry: Registry,
    doors: [Door; DOORS.len()],
    logins: [Counter; LOGINS.len()],
    data_failures: [Counter; DATA_FAILURES.len()],
    tls_failed: Counter,
    certificate_expiry: Gauge,
    commits: [Counter; 2],
    commit_seconds: Histogram,
    reloads: [Counter; 2],
    last_reload: Gauge,
    log_dropped: Counter,
    cache_hits: Counter,
    ready: Gauge,
    stuck: Gauge,
    open_files: Gauge,
    resident: Gauge,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// One row for each member of a fixed label set.
fn rows<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: [&'static str; N],
) -> [Counter; N] {
    let family = Family::<Labels<1>, Counter>::default();
    registry.register(name, help, family.clone());
    values.map(|value| family.get_or_create_owned(&[(label, value)]))
}

fn doors(registry: &mut Registry) -> [Door; DOORS.len()] {
    let links = Family::<Labels<1>, Gauge>::default();
    let opened = Family::<Labels<1>, Counter>::default();
    let refused = Family::<Labels<2>, Counter>::default();
    let panics = Family::<Labels<1>, Counter>::default();
    let operations = Family::<Labels<2>, Counter>::default();
    let bytes = Family::<Labels<2>, Counter>::default();
    registry.register("links", "Connections open now", links.clone());
    registry.register("links_opened", "Connections accepted", opened.clone());
    registry.register("links_refused", "Connections closed at once, by the limit they met", refused.clone());
    registry.register("link_panics", "Connections ended by a fault of ours", panics.clone());
    registry.register("operations", "Operations by the class of their reply", operations.clone());
    registry.register_with_unit("transferred", "Payload moved", Unit::Bytes, bytes.clone());
    DOORS.map(|door| Door {
        links: links.get_or_create_owned(&[("door", door)]),
        links_total: opened.get_or_create_owned(&[("door", door)]),
        refused: REFUSALS.map(|why| refused.get_or_create_owned(&[("door", door), ("limit", why)])),
        panics: panics.get_or_create_owned(&[("door", door)]),
        operations: RESULTS.map(|result| operations.get_or_create_owned(&[("door", door), ("result", result)])),
        received: bytes.get_or_create_owned(&[("door", door), ("direction", "in")]),
        sent: bytes.get_or_create_owned(&[("door", door), ("direction", "out")]),
    })
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("stoa");
        let r = &mut registry;
        let doors = doors(r);
        let logins = rows(r, "logins", "Sign-ins by result", "result", LOGINS);
        let data_help = "Data connections that did not come to be";
        let data_failures = rows(r, "data_connections_failed", data_help, "reason", DATA_FAILURES);
        let commits = rows(r, "commits", "Commits of the catalog by result", "result", ["ok", "failed"]);
        let reloads = rows(r, "reloads", "Configuration reloads by result", "result", ["ok", "failed"]);
        let tls_failed = Counter::default();
        r.register("tls_handshakes_failed", "TLS handshakes that failed", tls_failed.clone());
        let certificate_expiry = Gauge::default();
        r.register(
            "certificate_expiry_timestamp_seconds",
            "When the TLS certificate ends; 0: unknown",
            certificate_expiry.clone(),
        );
        // 50 µs to about 13 s: from a commit without a disk to a disk in trouble.
        let commit_seconds = Histogram::new((0..10).map(|step| 50e-6 * f64::from(4_u32.pow(step))));
        r.register_with_unit("commit", "Time of one durable commit", Unit::Seconds, commit_seconds.clone());
        let last_reload = Gauge::default();
        r.register(
            "last_reload_timestamp_seconds",
            "When the configuration was last read; 0: at start only",
            last_reload.clone(),
        );
        let log_dropped = Counter::default();
        r.register("log_dropped", "Log lines lost because the disk was full or too slow", log_dropped.clone());
        let cache_hits = Counter::default();
        r.register("http_cache_hits", "HTTP responses sent as they were kept", cache_hits.clone());
        let ready = Gauge::default();
        r.register("ready", "1: ready, 0: /ready says why not", ready.clone());
        let stuck = Gauge::default();
        r.register(
            "publishes_stuck",
            "Changes that can be neither put in place nor undone; both are tried again",
            stuck.clone(),
        );
        let open_files = Gauge::default();
        r.register("process_open_fds", "File descriptors in use", open_files.clone());
        let resident = Gauge::default();
        r.register("process_resident_memory_bytes", "Resident memory", resident.clone());
        let start = Gauge::<i64>::default();
        start.set(unix_now());
        r.register("process_start_time_seconds", "When the daemon started", start);
        r.register("build", "What runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            registry,
            doors,
            logins,
            data_failures,
            tls_failed,
            certificate_expiry,
            commits,
            commit_seconds,
            reloads,
            last_reload,
            log_dropped,
            cache_hits,
            ready,
            stuck,
            open_files,
            resident,
        }
    }

    fn door(&self, name: &str) -> &Door {
        let [.., other] = &self.doors;
        DOORS.iter().zip(&self.doors).find(|(known, _)| **known == name).map_or(other, |(_, door)| door)
    }
}

/// The counter of `word` among `words`, or the last one, which is for all others.
fn pick<'a, const N: usize>(words: &[&str; N], counters: &'a [Counter; N], word: &str) -> Option<&'a Counter> {
    words.iter().position(|known| *known == word).and_then(|index| counters.get(index)).or(counters.last())
}

fn count(counter: Option<&Counter>) {
    if let Some(counter) = counter {
        counter.inc();
    }
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// A connection of a door began.
pub fn link_opened(door: &str) {
    let door = METRICS.door(door);
    door.links.inc();
    door.links_total.inc();
}

/// A connection of a door ended.
pub fn link_closed(door: &str) {
    METRICS.door(door).links.dec();
}

/// A connection got no place: `total`, `address`, `account` or `descriptors`.
pub fn link_refused(door: &str, limit: &str) {
    count(pick(&REFUSALS, &METRICS.door(door).refused, limit));
}

/// A connection was ended by a fault of ours.
pub fn link_panicked(door: &str) {
    METRICS.door(door).panics.inc();
}

/// Counts one operation of a door; the result is its reply code, or `ok`.
pub fn operation(door: &str, result: &str) {
    let class = match result.as_bytes() {
        [b'1', _, _] => "1xx",
        [b'2', _, _] => "2xx",
        [b'3', _, _] => "3xx",
        [b'4', _, _] => "4xx",
        [b'5', _, _] => "5xx",
        _ => result,
    };
    count(pick(&RESULTS, &METRICS.door(door).operations, class));
}

/// Payload a door took in.
pub fn received(door: &str, bytes: u64) {
    METRICS.door(door).received.inc_by(bytes);
}

/// Payload a door gave out.
pub fn sent(door: &str, bytes: u64) {
    METRICS.door(door).sent.inc_by(bytes);
}

/// A sign-in ended: `ok`, `refused`, `throttled` or `unavailable`.
pub fn login(result: &str) {
    count(pick(&LOGINS, &METRICS.logins, result));
}

/// A data connection did not come to be: `nobody` came, no `ports` were left, a `stranger` came, …
pub fn data_connection_failed(reason: &str) {
    count(pick(&DATA_FAILURES, &METRICS.data_failures, reason));
}

/// A TLS handshake failed.
pub fn tls_failed() {
    METRICS.tls_failed.inc();
}

/// An HTTP response was sent as it was kept.
pub fn cache_hit() {
    METRICS.cache_hits.inc();
}

/// Whether the server is ready, and how many changes can be neither put in place nor undone.
pub fn state(ready: bool, stuck: usize) {
    METRICS.ready.set(ready.into());
    METRICS.stuck.set(i64::try_from(stuck).unwrap_or(i64::MAX));
}

/// The certificate in use ends at this second since 1970.
pub fn certificate_expires(at: i64) {
    METRICS.certificate_expiry.set(at);
}

/// The catalog committed, or failed to.
pub fn commit(took: Duration, done: bool) {
    let [ok, failed] = &METRICS.commits;
    if done { ok } else { failed }.inc();
    METRICS.commit_seconds.observe(took.as_secs_f64());
}

/// The configuration was read again, or refused.
pub fn reload(done: bool) {
    let [ok, failed] = &METRICS.reloads;
    if done { ok } else { failed }.inc();
    if done {
        METRICS.last_reload.set(unix_now());
    }
}

/// All metrics as OpenMetrics text.
#[must_use]
pub fn render() -> String {
    let metrics = &*METRICS;
    raise(&metrics.log_dropped, log::dropped());
    if let Some(kibibytes) = resident_kibibytes() {
        metrics.resident.set(kibibytes.saturating_mul(1024));
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the folder being read.
        metrics.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX).saturating_sub(1));
    }
    let mut text = String::new();
    match encode(&mut text, &metrics.registry) {
        Ok(()) => text,
        Err(_) => "# EOF\n".into(),
    }
}

/// A counter kept elsewhere, copied here.
fn raise(counter: &Counter, total: u64) {
    counter.inner().fetch_max(total, Ordering::Relaxed);
}

fn resident_kibibytes() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_words_from_outside_make_none() {
        link_opened("gopher\n");
        operation("ftp", "226");
        operation("ftp", "<script>");
        login("whatever");
        commit(Duration::from_millis(3), true);
        let before = render().lines().count();
        operation("x".repeat(100).as_str(), "999");
        link_refused("smtp", "moon phase");
        let text = render();
        assert_eq!(text.lines().count(), before);
        assert!(text.contains("stoa_links{door=\"other\"} 1"), "{text}");
        assert!(text.contains("stoa_operations_total{door=\"ftp\",result=\"2xx\"} 1"), "{text}");
        assert!(text.contains("stoa_build_info{version="), "{text}");
        assert!(text.contains("stoa_commit_seconds_bucket"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
