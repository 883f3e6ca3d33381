//! mboxrd: many messages in one file, each behind a `From ` line, with `From ` in texts quoted by one more `>`
//! (<https://www.loc.gov/preservation/digital/formats/fdd/fdd000385.shtml>).
//!
//! The file has the line ends of Unix, a message those of the network: both ways they are changed. Nothing here holds more than a line, and
//! of a long line not all.

use std::io::{self, BufRead, Read, Write};

/// Bytes of a line held at most; a longer one goes by in pieces.
const LONGEST: u64 = 64 << 10;
/// Bytes of text handed on at once.
const PIECE: usize = 64 << 10;

/// What comes out of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// A message begins, at this byte of the file.
    Begin {
        /// Where its `From ` line begins.
        offset: u64,
        /// Seconds since 1970, from that line.
        arrived: Option<i64>,
    },
    /// Bytes of it.
    Text(Vec<u8>),
    /// It is over.
    End,
}

/// Takes a file apart.
pub struct Reader<R> {
    input: R,
    offset: u64,
    line: Vec<u8>,
    /// The last line read was whole.
    line_start: bool,
    /// An empty line that may belong to the next `From `.
    blank: bool,
    inside: bool,
    text: Vec<u8>,
    ready: std::collections::VecDeque<Part>,
    over: bool,
}

impl<R: BufRead> Reader<R> {
    /// From its beginning.
    pub fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            line: Vec::new(),
            line_start: true,
            blank: true,
            inside: false,
            text: Vec::new(),
            ready: std::collections::VecDeque::new(),
            over: false,
        }
    }

    /// The next part; `None` at the end of the file.
    ///
    /// # Errors
    /// The file's; `InvalidData` when it does not begin with a `From ` line.
    pub fn next(&mut self) -> io::Result<Option<Part>> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Ok(Some(part));
            }
            if self.over {
                return Ok(None);
            }
            self.step()?;
        }
    }

    fn step(&mut self) -> io::Result<()> {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let begin = self.offset;
        self.offset += self.input.by_ref().take(LONGEST).read_until(b'\n', &mut line)? as u64;
        let (start, ended) = (self.line_start, line.ends_with(b"\n"));
        self.line_start = ended;
        if line.is_empty() {
            self.finish();
            self.over = true;
        } else if start && self.blank && is_separator(&line) {
            self.finish();
            self.ready.push_back(Part::Begin { offset: begin, arrived: date(&line) });
            self.inside = true;
            self.blank = false;
        } else if !self.inside {
            let empty = line.iter().all(u8::is_ascii_whitespace);
            if !empty {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no `From ` line begins it: this is no mbox"));
            }
        } else {
            self.take(&line, start);
        }
        self.line = line;
        Ok(())
    }

    fn take(&mut self, line: &[u8], start: bool) {
        if std::mem::take(&mut self.blank) {
            self.text.extend_from_slice(b"\r\n");
        }
        if start && matches!(line, b"\n" | b"\r\n") {
            self.blank = true;
            return;
        }
        let line = if start && is_quoted(line) { line.get(1..).unwrap_or_default() } else { line };
        match line.strip_suffix(b"\n") {
            Some(text) => {
                self.text.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
                self.text.extend_from_slice(b"\r\n");
            }
            None => self.text.extend_from_slice(line),
        }
        if self.text.len() >= PIECE {
            self.ready.push_back(Part::Text(std::mem::take(&mut self.text)));
        }
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.inside) {
            if !self.text.is_empty() {
                self.ready.push_back(Part::Text(std::mem::take(&mut self.text)));
            }
            self.ready.push_back(Part::End);
        }
    }
}

/// `From somebody Thu Jan  1 00:00:00 1970`: with a time of day in it, for people write lines that begin with `From `.
fn is_separator(line: &[u8]) -> bool {
    let time = |four: &[u8]| matches!(four, [b' ' | b'0'..=b'9', b'0'..=b'9', b':', b'0'..=b'9', b'0'..=b'9']);
    line.starts_with(b"From ") && line.windows(5).any(time)
}

/// `>From `, `>>From `, …
fn is_quoted(line: &[u8]) -> bool {
    let rest = line.iter().position(|byte| *byte != b'>').and_then(|at| line.get(at..)).unwrap_or_default();
    line.starts_with(b">") && rest.starts_with(b"From ")
}

fn date(line: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [.., month, day, time, year] = words.as_slice() else { return None };
    let moment = jiff::civil::DateTime::strptime("%b %d %H:%M:%S %Y", format!("{month} {day} {time} {year}")).ok()?;
    Some(moment.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Puts messages into a file.
pub struct Writer<W> {
    output: W,
    line: Vec<u8>,
    /// What is in `line` begins a line.
    line_start: bool,
}

impl<W: Write> Writer<W> {
    /// Into this.
    pub fn new(output: W) -> Self {
        Self { output, line: Vec::new(), line_start: true }
    }

    /// A message begins.
    ///
    /// # Errors
    /// The file's.
    pub fn begin(&mut self, sender: &str, arrived: i64) -> io::Result<()> {
        let moment = jiff::Timestamp::from_second(arrived).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let sender: String = sender.chars().filter(char::is_ascii_graphic).collect();
        let sender = if sender.is_empty() { "MAILER-DAEMON" } else { &sender };
        writeln!(self.output, "From {sender} {}", moment.strftime("%a %b %e %H:%M:%S %Y"))
    }

    /// Bytes of it.
    ///
    /// # Errors
    /// The file's.
    pub fn text(&mut self, piece: &[u8]) -> io::Result<()> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.write_line()?;
            } else if self.line.len() as u64 >= LONGEST {
                self.write_part()?;
            }
        }
        Ok(())
    }

    /// It is over.
    ///
    /// # Errors
    /// The file's.
    pub fn end(&mut self) -> io::Result<()> {
        if !self.line.is_empty() || !self.line_start {
            self.line.push(b'\n');
            self.write_line()?;
        }
        self.output.write_all(b"\n")
    }

    /// What it wrote to.
    pub fn into_inner(self) -> W {
        self.output
    }

    fn write_line(&mut self) -> io::Result<()> {
        self.quote()?;
        let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        self.output.write_all(text.strip_suffix(b"\r").unwrap_or(text))?;
        self.output.write_all(b"\n")?;
        self.line.clear();
        self.line_start = true;
        Ok(())
    }

    /// All of a long line but its last byte, which may be half of a line end.
    fn write_part(&mut self) -> io::Result<()> {
        self.quote()?;
        let last = self.line.pop();
        self.output.write_all(&self.line)?;
        self.line.clear();
        self.line.extend(last);
        self.line_start = false;
        Ok(())
    }

    fn quote(&mut self) -> io::Result<()> {
        let quoted = self.line_start && (self.line.starts_with(b"From ") || is_quoted(&self.line));
        if quoted { self.output.write_all(b">") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::format_collect, reason = "short texts, plainly put together")]

    use proptest::prelude::*;

    use super::*;

    fn read(file: &str) -> Vec<(u64, String)> {
        let mut reader = Reader::new(io::BufReader::with_capacity(3, file.as_bytes()));
        let mut messages: Vec<(u64, String)> = Vec::new();
        while let Some(part) = reader.next().unwrap() {
            match part {
                Part::Begin { offset, .. } => messages.push((offset, String::new())),
                Part::Text(text) => messages.last_mut().unwrap().1.push_str(&String::from_utf8(text).unwrap()),
                Part::End => {}
            }
        }
        messages
    }

    const SEPARATOR: &str = "From a@b Thu Jan  1 00:00:01 1970\n";

    #[test]
    fn a_file_is_taken_apart_at_its_separators() {
        let file =
            format!("{SEPARATOR}A: 1\n\n>From me\n>>From you\nFrom nobody in particular\n\n{SEPARATOR}B: 2\n\nx\n\n\n");
        let second = file.rfind(SEPARATOR).unwrap() as u64;
        let first = "A: 1\r\n\r\nFrom me\r\n>From you\r\nFrom nobody in particular\r\n".to_owned();
        assert_eq!(read(&file), [(0, first), (second, "B: 2\r\n\r\nx\r\n\r\n".to_owned())]);
        assert_eq!(read(""), []);
        assert_eq!(read(&format!("{SEPARATOR}no end")), [(0, "no end".to_owned())]);
        let mut reader = Reader::new("Subject: one message\n".as_bytes());
        assert_eq!(reader.next().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_separator_tells_when_the_message_came() {
        assert_eq!(date(SEPARATOR.as_bytes()), Some(1));
        assert_eq!(date(b"From a@b Mon Nov 23 00:30:00 2026\n"), Some(1_795_393_800));
        assert_eq!(date(b"From a@b 00:30\n"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            messages in proptest::collection::vec(
                proptest::collection::vec("(>{0,2}From )?[a-z .>:0-9]{0,12}|From a 10:10", 0..6), 0..4),
            cut in 1_usize..40,
        ) {
            let texts: Vec<String> =
                messages.iter().map(|lines| lines.iter().map(|line| format!("{line}\r\n")).collect()).collect();
            let mut writer = Writer::new(Vec::new());
            for text in &texts {
                writer.begin("me@example.org", 1_700_000_000).unwrap();
                text.as_bytes().chunks(cut).for_each(|piece| writer.text(piece).unwrap());
                writer.end().unwrap();
            }
            let file = String::from_utf8(writer.into_inner()).unwrap();
            let back: Vec<String> = read(&file).into_iter().map(|(_, text)| text).collect();
            prop_assert_eq!(back, texts, "{}", file);
        }
    }
}
