//! A word to systemd: ready, reloading, stopping, one line of status, and the watchdog's ping.
//!
//! Without systemd (no `NOTIFY_SOCKET`) every word is a no-op.

use std::time::Duration;

use sd_notify::NotifyState;

/// Serving; also the end of a reload.
pub fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins: systemd 253 and later want the time in the same message.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
        Err(error) => tracing::warn!(%error, "no monotonic clock, systemd is not told of the reload"),
    }
}

/// The drain begins.
pub fn stopping(status: &str) {
    say(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// One line that `systemctl status` shows.
pub fn status(line: &str) {
    say(&[NotifyState::Status(line)]);
}

/// Start or drain takes longer: systemd must not lose patience for another `span`.
pub fn patience(span: Duration) {
    say(&[NotifyState::ExtendTimeoutUsec(u32::try_from(span.as_micros()).unwrap_or(u32::MAX))]);
}

/// Alive, all the way down to the store.
pub fn alive() {
    say(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear that we are alive, halved; `None` when it does not ask.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|period| !period.is_zero())
}

fn say(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        tracing::debug!(%error, "systemd did not hear us");
    }
}
