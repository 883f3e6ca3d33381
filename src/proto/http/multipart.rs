//! `multipart/form-data` (RFC 7578), read as it arrives: parts of any size, memory of a few lines.
//!
//! Our own, because the crate `multer` reads its stream for as long as bytes are ready and keeps them all: a fast sender decides how much
//! memory a form takes.

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::proto::http::disposition::Disposition;

/// Most bytes of one part's head.
const HEAD: usize = 8 << 10;
/// Longest boundary (RFC 2046 §5.1.1).
const BOUNDARY: usize = 70;

/// What comes next in a form.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// More bytes are needed.
    Hungry,
    /// A part begins.
    Part {
        /// Name of the file, for a file field.
        file: Option<String>,
    },
    /// Bytes of the part.
    Bytes(Bytes),
    /// The part is complete.
    End,
    /// The form is complete.
    Done,
}

enum State {
    /// Before the first boundary.
    Preamble,
    /// In a part's head.
    Head,
    /// In a part's content.
    Content,
    /// After the last boundary.
    Done,
}

/// Takes bytes, gives pieces.
pub struct Reader {
    /// `\r\n--boundary`
    mark: Vec<u8>,
    held: BytesMut,
    state: State,
}

impl Reader {
    /// Reads the boundary off a `Content-Type`; `None` when it is not a form of this kind.
    pub fn new(content_type: &str) -> Option<Self> {
        let (kind, rest) = content_type.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(rest, "boundary")?;
        if boundary.is_empty() || boundary.len() > BOUNDARY {
            return None;
        }
        // The first boundary has no line end before it: an imagined one makes all alike.
        let held = BytesMut::from(&b"\r\n"[..]);
        Some(Self { mark: format!("\r\n--{boundary}").into_bytes(), held, state: State::Preamble })
    }

    /// Takes the next bytes of the body.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Done) {
            self.held.extend_from_slice(bytes);
        }
    }

    /// The next piece.
    ///
    /// # Errors
    /// `Invalid` when it is not a form.
    pub fn next(&mut self) -> Result<Piece> {
        match self.state {
            State::Preamble => self.preamble(),
            State::Head => self.head(),
            State::Content => Ok(self.content()),
            State::Done => Ok(Piece::Done),
        }
    }

    fn preamble(&mut self) -> Result<Piece> {
        match memchr::memmem::find(&self.held, &self.mark) {
            Some(at) => {
                let _ = self.held.split_to(at + self.mark.len());
                self.state = State::Head;
                self.head()
            }
            None if self.held.len() > HEAD => Err(bad()),
            None => Ok(Piece::Hungry),
        }
    }

    /// After a boundary: `--` ends the form, a line end begins a part.
    fn head(&mut self) -> Result<Piece> {
        if self.held.starts_with(b"--") {
            self.state = State::Done;
            self.held.clear();
            return Ok(Piece::Done);
        }
        let Some(end) = memchr::memmem::find(&self.held, b"\r\n\r\n") else {
            return if self.held.len() > HEAD { Err(bad()) } else { Ok(Piece::Hungry) };
        };
        if end > HEAD {
            return Err(bad());
        }
        let head = self.held.split_to(end + 4);
        let said = part(&head)?;
        self.state = State::Content;
        Ok(Piece::Part { file: said.file })
    }

    fn content(&mut self) -> Piece {
        match memchr::memmem::find(&self.held, &self.mark) {
            Some(0) => {
                let _ = self.held.split_to(self.mark.len());
                self.state = State::Head;
                Piece::End
            }
            Some(at) => Piece::Bytes(self.held.split_to(at).freeze()),
            None => {
                // The end of what is held may be the beginning of a boundary.
                let sure = self.held.len().saturating_sub(self.mark.len() - 1);
                if sure == 0 { Piece::Hungry } else { Piece::Bytes(self.held.split_to(sure).freeze()) }
            }
        }
    }
}

/// What the head of a part says. What would be stored as something else than it is, or not at all, is refused.
fn part(head: &[u8]) -> Result<Disposition> {
    let text = std::str::from_utf8(head).map_err(|_| Error::new(Kind::Invalid, "a part's head is not UTF-8"))?;
    // A line that begins with a blank goes on with the one before.
    let text = text.replace("\r\n ", " ").replace("\r\n\t", " ");
    let mut lines = text.split("\r\n");
    if lines.next().is_none_or(|rest| !rest.trim().is_empty()) {
        return Err(bad());
    }
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |wanted: &str| {
        headers.iter().find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let said = Disposition::read(header("content-disposition").ok_or_else(bad)?);
    if said.name.is_none() && said.file.is_none() {
        return Err(bad());
    }
    let coding = header("content-transfer-encoding").unwrap_or("binary").to_ascii_lowercase();
    if !matches!(coding.as_str(), "7bit" | "8bit" | "binary") {
        let words = format!("a part is encoded ({coding}); send it as it is, without Content-Transfer-Encoding");
        return Err(Error::new(Kind::Invalid, words));
    }
    let kind = header("content-type").unwrap_or_default().to_ascii_lowercase();
    if said.file.is_none() && kind.starts_with("multipart/") {
        return Err(Error::new(
            Kind::Invalid,
            "a part holds files of its own; send each file as a part with a filename",
        ));
    }
    Ok(said)
}

/// A parameter of a header value: `; name="value"` or `; name=value`.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let (key, value) = rest.split_at(equals);
        let key = key.rsplit(';').next().unwrap_or_default().trim();
        let value = value.get(1..)?.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_once(';').unwrap_or((value, "")),
        };
        if key.eq_ignore_ascii_case(wanted) {
            return Some(value.trim().to_owned());
        }
        rest = after;
    }
    None
}

fn bad() -> Error {
    Error::new(Kind::Invalid, "the form cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &[u8] = b"--XyZ\r\nContent-Disposition: form-data; name=\"do\"\r\n\r\nupload\r\n--XyZ\r\n\
        content-disposition: form-data; name=\"file\"; filename=\"a; name=b %22.txt\"\r\nContent-Type: text/plain\r\n\r\n\
        one\r\n--Xy\r\ntwo\r\n\r\n--XyZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"\"\r\n\r\n\r\n--XyZ--\r\n";

    type Parts = Vec<(Option<String>, Vec<u8>)>;

    fn read(form: &[u8], cut: usize) -> Result<Parts> {
        let mut reader = Reader::new("multipart/form-data; boundary=\"XyZ\"").unwrap();
        let mut parts = Parts::new();
        let mut chunks = form.chunks(cut);
        loop {
            match reader.next()? {
                Piece::Hungry => match chunks.next() {
                    Some(chunk) => reader.feed(chunk),
                    None => return Err(bad()),
                },
                Piece::Part { file } => parts.push((file, Vec::new())),
                Piece::Bytes(bytes) => parts.last_mut().unwrap().1.extend_from_slice(&bytes),
                Piece::End => {}
                Piece::Done => return Ok(parts),
            }
        }
    }

    #[test]
    fn a_form_is_the_same_wherever_the_wire_cuts_it() {
        let expected: Parts = vec![
            (None, b"upload".to_vec()),
            (Some("a; name=b \".txt".into()), b"one\r\n--Xy\r\ntwo\r\n".to_vec()),
            (Some(String::new()), Vec::new()),
        ];
        for cut in [1, 2, 3, 7, 1000] {
            assert_eq!(read(FORM, cut).unwrap(), expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_a_form_is_refused_within_bounds() {
        assert!(read(&vec![b'x'; 10_000], 100).is_err());
        let mut endless = b"--XyZ\r\nContent-Disposition: ".to_vec();
        endless.resize(20_000, b'x');
        assert!(read(&endless, 100).is_err());
        assert!(read(b"--XyZ\r\nContent-Type: a/b\r\n\r\nx\r\n--XyZ--", 5).is_err());
        for head in [
            "Content-Disposition: form-data",
            "Content-Disposition: form-data; name=f; filename=a\r\nContent-Transfer-Encoding: base64",
            "Content-Disposition: form-data; name=f\r\nContent-Type: multipart/mixed; boundary=C",
        ] {
            assert!(read(format!("--XyZ\r\n{head}\r\n\r\nx\r\n--XyZ--").as_bytes(), 5).is_err(), "{head}");
        }
        let folded = b"--XyZ\r\nContent-Disposition: form-data;\r\n name=f;\r\n\tfilename=a\r\n\r\nx\r\n--XyZ--";
        assert_eq!(read(folded, 5).unwrap(), [(Some("a".into()), b"x".to_vec())]);
        assert!(Reader::new("multipart/form-data").is_none());
        assert!(Reader::new("text/plain; boundary=x").is_none());
    }

    #[test]
    fn a_form_that_breaks_off_is_not_complete() {
        for end in 0..FORM.len() - 4 {
            assert!(read(&FORM[..end], 50).is_err(), "{end}");
        }
    }
}
