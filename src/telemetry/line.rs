//! Lines: an event as one line of text that no value can break out of.
//!
//! Paths, names and errors come from peers. Whatever they hold, a record stays one line, and a terminal that shows it is not
//! steered by it.

use std::fmt::{self, Write};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::settings::ACCESS;

/// How a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `time=… level=info target=… msg="…" key=value`, for files.
    Fields,
    /// `<6>message key=value`: the journal keeps time and priority itself (sd-daemon(3)).
    Journal,
    /// `2026-11-22T20:52:11Z  INFO message key=value`, for people.
    Terminal,
}

impl<S, N> FormatEvent<S, N> for Style
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let level = *meta.level();
        match self {
            Self::Fields => {
                write!(writer, "time={:.3} level={} target={}", Timestamp::now(), lower(level), meta.target())?;
            }
            Self::Journal => write!(writer, "<{}>", priority(level))?,
            Self::Terminal => write!(writer, "{:.0} {level:>5} ", Timestamp::now())?,
        }
        let mut pairs = Pairs { writer: &mut writer, begun: *self == Self::Fields, message: *self, result: Ok(()) };
        // The message first, wherever the event's fields put it.
        event.record(&mut MessageOnly(&mut pairs));
        event.record(&mut pairs);
        pairs.result?;
        // An access line says itself what the span around it would say again.
        let around = if meta.target() == ACCESS { None } else { context.event_scope() };
        if let Some(scope) = around {
            for span in scope.from_root() {
                let extensions = span.extensions();
                if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                    write!(writer, " {}", fields.fields)?;
                }
            }
        }
        writeln!(writer)
    }
}

/// Span fields as pairs, escaped once when the span begins.
pub(super) struct SpanFields;

impl<'writer> FormatFields<'writer> for SpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut pairs = Pairs { writer: &mut writer, begun: false, message: Style::Fields, result: Ok(()) };
        fields.record(&mut pairs);
        pairs.result
    }
}

fn lower(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Writes `key=value` pairs.
struct Pairs<'a, 'w> {
    writer: &'a mut Writer<'w>,
    begun: bool,
    message: Style,
    result: fmt::Result,
}

const MESSAGE: &str = "message";

impl Pairs<'_, '_> {
    fn pair(&mut self, key: &str, value: &str) {
        if self.result.is_ok() && key != MESSAGE {
            self.result =
                self.begin().and_then(|()| write!(self.writer, "{key}=")).and_then(|()| word(self.writer, value));
        }
    }

    fn bare(&mut self, key: &str, value: impl fmt::Display) {
        if self.result.is_ok() {
            self.result = self.begin().and_then(|()| write!(self.writer, "{key}={value}"));
        }
    }

    fn message(&mut self, text: &str) {
        if self.result.is_err() {
            return;
        }
        self.result = self.begin().and_then(|()| match self.message {
            Style::Fields => write!(self.writer, "msg=").and_then(|()| word(self.writer, text)),
            Style::Journal | Style::Terminal => escaped(self.writer, text, false),
        });
    }

    fn begin(&mut self) -> fmt::Result {
        if std::mem::replace(&mut self.begun, true) { self.writer.write_char(' ') } else { Ok(()) }
    }
}

impl Visit for Pairs<'_, '_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.bare(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.pair(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != MESSAGE {
            self.pair(field.name(), &format!("{value:?}"));
        }
    }
}

/// The first pass over an event: only its message.
struct MessageOnly<'p, 'a, 'w>(&'p mut Pairs<'a, 'w>);

impl Visit for MessageOnly<'_, '_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.0.message(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.0.message(&format!("{value:?}"));
        }
    }
}

/// A value as it is, or quoted when it holds anything a reader of pairs could misread.
pub(super) fn word(writer: &mut impl Write, value: &str) -> fmt::Result {
    let plain = |c: char| c.is_alphanumeric() || (c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\'));
    if !value.is_empty() && value.chars().all(plain) {
        return writer.write_str(value);
    }
    writer.write_char('"')?;
    escaped(writer, value, true)?;
    writer.write_char('"')
}

/// Text without anything that moves a cursor, ends a line or turns the reading direction.
fn escaped(writer: &mut impl Write, text: &str, quoted: bool) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\n' => writer.write_str("\\n")?,
            '\r' => writer.write_str("\\r")?,
            '\t' => writer.write_str("\\t")?,
            '"' | '\\' if quoted => write!(writer, "\\{c}")?,
            c if c.is_control() || steers(c) => write!(writer, "\\u{{{:x}}}", u32::from(c))?,
            c => writer.write_char(c)?,
        }
    }
    Ok(())
}

/// Line separators and bidirectional controls.
fn steers(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worded(value: &str) -> String {
        let mut text = String::new();
        word(&mut text, value).unwrap();
        text
    }

    #[test]
    fn no_value_can_end_its_line_or_pretend_to_be_another_field() {
        assert_eq!(worded("/scans/a.pdf"), "/scans/a.pdf");
        assert_eq!(worded("/Übung/ä"), "/Übung/ä");
        assert_eq!(worded(""), "\"\"");
        assert_eq!(worded("a b=c"), "\"a b=c\"");
        assert_eq!(worded("x\" result=ok y=\"\n<3>forged"), "\"x\\\" result=ok y=\\\"\\n<3>forged\"");
        assert_eq!(worded("\u{1b}[31mred\u{9b}2J\u{202e}\u{2028}"), "\"\\u{1b}[31mred\\u{9b}2J\\u{202e}\\u{2028}\"");
    }
}
