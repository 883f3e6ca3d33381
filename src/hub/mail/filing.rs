//! Which parts of a message are files, and what they are called. Pure: bytes in, names and bytes out.
//!
//! A part is a file when it has a name, says it is attached, or is no text: scanners mark their PDFs `inline`, cameras
//! name nothing. Texts people read (plain or HTML, without a name) are no files, nor are the pictures they show by `cid:`. Where such a text
//! says something, or anything was left out or may have been misread, the whole message is filed as well.

use std::collections::HashSet;

use bytes::Bytes;

use super::mime::{Found, Head, Walker};
use super::name::{cut, extension_of, lone_extension, numbered, plain_name};
use super::settings::MimeLimits;
use super::text::Texts;

/// Longest piece of a subject that becomes part of a file name.
const LONGEST_SUBJECT: usize = 100;

/// Files that say something of a message and are not what it brings.
const ACCESSORIES: &[&str] =
    &["application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"];

/// What a file out of mail is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileName {
    /// A safe plain name.
    pub text: String,
    /// Its media type, `application/pdf`.
    pub media: String,
    /// We made it up: it says nothing about which older file it could replace, so it never replaces any.
    pub ours: bool,
}

/// What the sorter has for its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sorted {
    /// A file begins.
    File(FileName),
    /// Bytes of it.
    Bytes(Bytes),
    /// It is whole.
    End,
}

/// Sorts a message's parts into files and the rest, piece by piece.
pub(super) struct Sorter {
    walker: Walker,
    found: Vec<Found>,
    taken: HashSet<String>,
    most: usize,
    files: usize,
    /// The part going by is a file.
    open: bool,
    /// The part going by is a text.
    reading: bool,
    texts: Texts,
    /// Words from which on a text is filed; 0: never.
    words: usize,
    /// Pictures a text may show: the number of the file, and its id.
    pictures: Vec<(usize, String)>,
    accessories: usize,
    too_many: bool,
    /// Decoded bytes that all files may still have.
    room: u64,
    too_large: bool,
}

impl Sorter {
    /// For a message with at most `most` files.
    pub(super) fn new(most: usize, limits: MimeLimits) -> Self {
        Self {
            walker: Walker::new(limits),
            found: Vec::new(),
            taken: HashSet::new(),
            most,
            files: 0,
            open: false,
            reading: false,
            texts: Texts::default(),
            words: limits.text_words,
            pictures: Vec::new(),
            accessories: 0,
            too_many: false,
            room: if limits.decoded.0 == 0 { u64::MAX } else { limits.decoded.0 },
            too_large: false,
        }
    }

    /// The next bytes of the message.
    pub(super) fn feed(&mut self, chunk: &[u8], sorted: &mut Vec<Sorted>) {
        let mut found = std::mem::take(&mut self.found);
        self.walker.feed(chunk, &mut found);
        self.sort(&mut found, sorted);
        self.found = found;
    }

    /// The message is over.
    pub(super) fn finish(&mut self, sorted: &mut Vec<Sorted>) {
        let mut found = std::mem::take(&mut self.found);
        self.walker.finish(&mut found);
        self.sort(&mut found, sorted);
        self.texts.end();
        self.pictures.retain(|(_, id)| self.texts.shows(id));
    }

    /// Is this file, by its number, a picture in a text, which is no attachment? Known once the message is over.
    pub(super) fn is_shown(&self, number: usize) -> bool {
        self.pictures.iter().any(|(shown, _)| *shown == number)
    }

    /// Why the message is filed beside its files.
    pub(super) fn beside(&self) -> Option<&'static str> {
        let says_something = self.words > 0 && self.texts.words() >= self.words;
        let left_out = (!self.pictures.is_empty()).then_some("its text shows pictures");
        self.walker.doubt().or(left_out).or(says_something.then_some("its text says something"))
    }

    /// Why the message must be filed whole: it has no files, or more or stranger ones than we take apart.
    pub(super) fn whole(&self) -> Option<&'static str> {
        match (self.walker.broken(), self.files) {
            (Some(why), _) => Some(why),
            (None, _) if self.too_many => Some("it has more attachments than storage.attachments allows"),
            (None, _) if self.too_large => Some("its attachments are larger than mail.mime_decoded allows"),
            (None, files) if files <= self.pictures.len() + self.accessories => Some("it has no attachments"),
            (None, _) => None,
        }
    }

    /// What the message itself is called when it becomes a file.
    pub(super) fn message_name(&mut self, date: &str) -> FileName {
        let subject = plain_name(self.walker.subject()).unwrap_or_else(|| "message".into());
        let subject = cut(&subject, LONGEST_SUBJECT).trim_end_matches(['.', ' ']);
        FileName { text: self.fresh(&format!("{date} {subject}.eml")), media: "message/rfc822".into(), ours: true }
    }

    fn sort(&mut self, found: &mut Vec<Found>, sorted: &mut Vec<Sorted>) {
        for event in found.drain(..) {
            match event {
                Found::Part(head) if is_file(&head) => {
                    self.too_many |= self.files >= self.most;
                    self.open = !self.too_many && !self.too_large;
                    self.reading = false;
                    if self.open {
                        self.note(&head);
                        sorted.push(Sorted::File(self.name(&head)));
                    }
                }
                Found::Part(head) => {
                    (self.open, self.reading) = (false, true);
                    self.texts.begin(head.media == "text/html");
                }
                Found::Bytes(bytes) if self.reading => self.texts.push(&bytes),
                Found::Bytes(bytes) if self.open => {
                    let left = self.room.checked_sub(bytes.len() as u64);
                    self.room = left.unwrap_or(self.room);
                    self.too_large = left.is_none();
                    self.open = !self.too_large;
                    sorted.push(if self.open { Sorted::Bytes(bytes) } else { Sorted::End });
                }
                Found::End if self.open => sorted.push(Sorted::End),
                Found::Bytes(_) | Found::End => {}
            }
        }
    }

    /// Counts a file, and remembers what else it may be.
    fn note(&mut self, head: &Head) {
        if ACCESSORIES.contains(&head.media.as_str()) {
            self.accessories += 1;
        }
        if let (Some(id), true, false) = (&head.id, head.media.starts_with("image/"), head.attached) {
            self.pictures.push((self.files, id.clone()));
        }
        self.files += 1;
    }

    fn name(&mut self, head: &Head) -> FileName {
        let lone = head.name.as_deref().and_then(lone_extension);
        if let (Some(name), None) = (head.name.as_deref().and_then(plain_name), &lone) {
            return FileName { text: self.fresh(&name), media: head.media.clone(), ours: false };
        }
        let extension = lone.as_deref().unwrap_or_else(|| extension_of(&head.media));
        let name = format!("attachment-{}{extension}", self.files);
        FileName { text: self.fresh(&name), media: head.media.clone(), ours: true }
    }

    /// Two files of one message never replace one another.
    fn fresh(&mut self, name: &str) -> String {
        let mut fresh = name.to_owned();
        let mut number = 1;
        while !self.taken.insert(fresh.to_lowercase()) {
            number += 1;
            fresh = numbered(name, number);
        }
        fresh
    }
}

/// The files of a whole message that arrives in pieces of `cut` bytes, as a drop address would store them: names and bytes. One that
/// cannot be taken apart is one file. Nothing is stored; fuzzers and tests look in here.
#[must_use]
pub fn dissect(message: &[u8], cut: usize, most: usize) -> Vec<(String, Vec<u8>)> {
    let (mut sorter, mut sorted) = (Sorter::new(most, MimeLimits::default()), Vec::new());
    for piece in message.chunks(cut.max(1)) {
        sorter.feed(piece, &mut sorted);
    }
    sorter.finish(&mut sorted);
    if sorter.whole().is_some() {
        return vec![(sorter.message_name("2026-01-01").text, message.to_vec())];
    }
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for event in sorted {
        match (event, files.last_mut()) {
            (Sorted::File(name), _) => files.push((name.text, Vec::new())),
            (Sorted::Bytes(bytes), Some((_, content))) => content.extend_from_slice(&bytes),
            (Sorted::Bytes(_) | Sorted::End, _) => {}
        }
    }
    let mut number = 0..;
    files.retain(|_| number.next().is_none_or(|number| !sorter.is_shown(number)));
    if sorter.beside().is_some() {
        files.push((sorter.message_name("2026-01-01").text, message.to_vec()));
    }
    files
}

fn is_file(head: &Head) -> bool {
    let read = matches!(head.media.as_str(), "text/enriched" | "text/html" | "text/plain" | "text/richtext");
    head.attached || head.name.is_some() || !(read || head.media.starts_with("multipart/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::ByteSize;

    type File = (String, Vec<u8>);

    fn files_cut(message: &[u8], cut: usize, most: usize) -> (Vec<File>, Option<&'static str>, String) {
        files_within(message, cut, most, MimeLimits::default())
    }

    fn files_within(
        message: &[u8],
        cut: usize,
        most: usize,
        limits: MimeLimits,
    ) -> (Vec<File>, Option<&'static str>, String) {
        let mut sorter = Sorter::new(most, limits);
        let mut sorted = Vec::new();
        for chunk in message.chunks(cut) {
            sorter.feed(chunk, &mut sorted);
        }
        sorter.finish(&mut sorted);
        let mut files: Vec<File> = Vec::new();
        let mut open = false;
        for event in sorted {
            match event {
                Sorted::File(name) => {
                    assert!(!open, "a file inside a file");
                    open = true;
                    files.push((name.text, Vec::new()));
                }
                Sorted::Bytes(bytes) => files.last_mut().unwrap().1.extend_from_slice(&bytes),
                Sorted::End => open = false,
            }
        }
        assert!(!open, "a file without its end");
        let name = sorter.message_name("2026-01-02 030405").text;
        (files, sorter.whole(), name)
    }

    fn files(message: &str) -> Vec<File> {
        let crlf = message.replace('\n', "\r\n");
        let whole = files_cut(crlf.as_bytes(), usize::MAX, 200).0;
        for cut in [1, 2, 3, 7] {
            assert_eq!(files_cut(crlf.as_bytes(), cut, 200).0, whole, "cut at {cut}");
        }
        whole
    }

    fn file(name: &str, bytes: &str) -> File {
        (name.into(), bytes.into())
    }

    #[test]
    fn a_scanner_mail_gives_its_pdf_even_marked_inline() {
        let message = "Subject: Scan\nContent-Type: multipart/mixed; boundary=\"b1\"\n\npreamble\n--b1\nContent-Type: text/plain\n\nSee attached.\n--b1\nContent-Type: application/pdf; name=\"scan.pdf\"\nContent-Disposition: inline; filename=\"scan.pdf\"\nContent-Transfer-Encoding: base64\n\naGVs\nbG8=\n--b1--\nepilogue\n";
        assert_eq!(files(message), [file("scan.pdf", "hello")]);
    }

    #[test]
    fn names_are_decoded_in_all_the_ways_they_are_written() {
        let part = |header: &str| {
            format!(
                "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: application/pdf\nContent-Disposition: attachment; {header}\n\nx\n--b--\n"
            )
        };
        let table = [
            ("filename=plain.pdf", "plain.pdf"),
            ("filename*=utf-8''M%C3%A4rz.pdf", "März.pdf"),
            ("filename*=iso-8859-1'de'M%E4rz.pdf", "März.pdf"),
            ("filename=\"old.pdf\"; filename*=utf-8''M%C3%A4rz.pdf", "März.pdf"),
            ("filename*=''M%C3%A4rz.pdf", "März.pdf"),
            ("filename*=x-none''plain%20one.pdf", "plain one.pdf"),
            ("filename*0=\"very \";\n filename*1=\"long.pdf\"", "very long.pdf"),
            ("filename*0*=utf-8''M%C3;\n filename*1*=%A4rz.pdf", "März.pdf"),
            ("filename=\"=?utf-8?B?TcOkcnoucGRm?=\"", "März.pdf"),
            ("filename=\"=?iso-8859-1?Q?M=E4rz.pdf?=\"", "März.pdf"),
            ("filename=\"März.pdf\"", "März.pdf"),
            ("filename=\"../../.ssh/authorized_keys\"", "ssh_authorized_keys"),
            ("filename=\"..\"", "attachment-1.pdf"),
            ("filename=\"\"", "attachment-1.pdf"),
        ];
        for (header, expected) in table {
            assert_eq!(files(&part(header)), [file(expected, "x")], "{header}");
        }
    }

    #[test]
    fn a_message_that_is_one_file_gives_it() {
        let message = "Content-Type: image/jpeg\nContent-Transfer-Encoding: base64\n\naGVsbG8=\n";
        assert_eq!(files(message), [file("attachment-1.jpg", "hello")]);
    }

    #[test]
    fn bodies_are_not_files_and_the_message_gets_a_name() {
        let message = "Subject: =?utf-8?Q?Bewegung_erkannt=3A?= Hof/Tor\r\n\r\nhello\r\n";
        let (found, whole, name) = files_cut(message.as_bytes(), 5, 200);
        assert_eq!((found.len(), whole), (0, Some("it has no attachments")));
        assert_eq!(name, "2026-01-02 030405 Bewegung erkannt_ Hof_Tor.eml");
        assert_eq!(files_cut(b"no header at all", 5, 200).2, "2026-01-02 030405 message.eml");
    }

    #[test]
    fn nested_parts_and_forwarded_messages_come_out_whole() {
        let message = "Content-Type: multipart/mixed; boundary=out\n\n--out\nContent-Type: multipart/alternative; boundary=in\n\n--in\nContent-Type: text/plain\n\ntext\n--in\nContent-Type: text/html\n\n<p>text\n--in--\n--out\nContent-Type: message/rfc822\n\nSubject: inner\n\nbody\n\n--out\nContent-Type: text/csv; name=a.csv\n\n1;2\n3;4\n\n--out\nContent-Type: text/csv; name=a.csv\nContent-Transfer-Encoding: quoted-printable\n\n1=3B2\n--out--\n";
        assert_eq!(
            files(message),
            [
                file("attachment-1.eml", "Subject: inner\r\n\r\nbody\r\n"),
                file("a.csv", "1;2\r\n3;4\r\n"),
                file("a (2).csv", "1;2"),
            ]
        );
    }

    #[test]
    fn a_missing_end_loses_nothing_and_bare_lf_is_fine() {
        let message = b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: application/zip\n\nPK";
        assert_eq!(files_cut(message, 4, 200).0, [file("attachment-1.zip", "PK")]);
        let message = b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Disposition: attachment; filename=x.txt\n--b--\n";
        assert_eq!(files_cut(message, 4, 200).0, [file("x.txt", "")]);
    }

    #[test]
    fn bombs_are_filed_whole() {
        let level = |level| format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n");
        let deep = (0..150).map(level).collect::<Vec<_>>().concat();
        assert_eq!(
            files_cut(deep.as_bytes(), 1000, 200).1,
            Some("its parts are nested deeper than mail.mime_depth allows")
        );
        let wide = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\n".repeat(10_001));
        assert_eq!(files_cut(wide.as_bytes(), 1000, 200).1, Some("it has more parts than mail.mime_parts allows"));
        let many = format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n{}",
            "--b\r\nContent-Type: image/png\r\n\r\nx\r\n".repeat(5)
        );
        assert!(files_cut(many.as_bytes(), 1000, 4).1.unwrap().contains("more attachments"));
        assert_eq!(files_cut(many.as_bytes(), 1000, 5).1, None);
        let long = format!("Content-Type: application/pdf\r\n\r\n{}", "x".repeat(3_000_000));
        assert_eq!(files_cut(long.as_bytes(), 70_000, 5).0.first().unwrap().1.len(), 3_000_000);
    }

    #[test]
    fn how_far_a_message_is_taken_apart_is_a_setting() {
        let whole = |message: &str, limits| {
            let said = [1, 7, usize::MAX].map(|cut| files_within(message.as_bytes(), cut, 200, limits).1);
            assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
            said[0].unwrap_or_default()
        };
        let usual = MimeLimits::default();
        let part = |bytes: &str| format!("--b\r\nContent-Type: image/png\r\n\r\n{bytes}\r\n");
        let message = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}{}", part("12345"), part("67890"));
        for limits in [
            usual,
            MimeLimits { depth: 1, ..usual },
            MimeLimits { parts: 3, ..usual },
            MimeLimits { head: ByteSize(43), ..usual },
            MimeLimits { decoded: ByteSize(10), ..usual },
        ] {
            assert_eq!(whole(&message, limits), "", "{limits:?}");
        }
        assert!(whole(&message, MimeLimits { depth: 0, ..usual }).contains("mime_depth"));
        assert!(whole(&message, MimeLimits { parts: 2, ..usual }).contains("mime_parts"));
        assert!(whole(&message, MimeLimits { decoded: ByteSize(9), ..usual }).contains("mime_decoded"));
        // What is behind the limit is not looked at: a message of text.
        assert_eq!(whole(&message, MimeLimits { head: ByteSize(42), ..usual }), "it has no attachments");
        let encoded = "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n";
        assert_eq!(whole(encoded, MimeLimits { decoded: ByteSize(5), ..usual }), "", "what counts is decoded");
        assert!(whole(encoded, MimeLimits { decoded: ByteSize(4), ..usual }).contains("mime_decoded"));
    }

    #[test]
    fn a_header_made_to_be_slow_is_not() {
        for mark in ["=? ", "a*0*=;", "x=?"] {
            let slow = mark.repeat(1000);
            let message =
                format!("Subject: {slow}\r\nContent-Type: application/pdf\r\nContent-Disposition: {slow}\r\n\r\nx");
            let (found, _, name) = files_cut(message.as_bytes(), 700, 5);
            assert_eq!(found.len(), 1);
            assert!(name.starts_with("2026-01-02 030405 "), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_message_is_sorted_alike_however_it_is_cut(
            lines in proptest::collection::vec(
                "Content-Type: multipart/mixed; boundary=b|Content-Type: application/pdf; name\\*0\\*=\\PC{0,9}; name\\*0=a|--b|--b--||Content-Disposition: attachment; filename\\*?0?\\*?=\\PC{0,9}|Content-Transfer-Encoding: (base64|quoted-printable)|\\PC{0,30}|=[0-9A-G]{1,2} |[A-Za-z0-9+/=]{0,60}|x{505,520}",
                0..30,
            ),
            end in "\n|\r\n",
            cut in 1_usize..50,
        ) {
            let message = lines.join(&end);
            prop_assert_eq!(files_cut(message.as_bytes(), cut, 20), files_cut(message.as_bytes(), usize::MAX, 20));
        }
    }
}
