//! What a mail program wrote into the header of a message in an mbox: read, answered, marked, deleted.
//!
//! `Status` and `X-Status` are those of mutt, pine, Dovecot and the like; `X-Mozilla-Status` is Thunderbird's, four hexadecimal digits.

/// Header bytes looked at.
const LONGEST: usize = 64 << 10;

/// Bits of `X-Mozilla-Status`.
const READ: u32 = 0x0001;
const REPLIED: u32 = 0x0002;
const MARKED: u32 = 0x0004;
const EXPUNGED: u32 = 0x0008;
const FORWARDED: u32 = 0x1000;

/// Gathers the header of one message as it passes.
#[derive(Default)]
pub(super) struct Status {
    head: Vec<u8>,
    over: bool,
}

impl Status {
    /// The next bytes of the message.
    pub(super) fn push(&mut self, text: &[u8]) {
        if self.over {
            return;
        }
        let from = self.head.len().saturating_sub(3);
        let room = LONGEST.saturating_sub(self.head.len());
        self.head.extend_from_slice(text.get(..room).unwrap_or(text));
        let end = memchr::memmem::find(self.head.get(from..).unwrap_or_default(), b"\r\n\r\n");
        if let Some(end) = end {
            self.head.truncate(from + end);
        }
        self.over = end.is_some() || self.head.len() >= LONGEST;
    }

    /// Its Maildir flags, and whether a reader has noticed it; `None`: it was deleted, and only still there.
    pub(super) fn read(&self) -> Option<(String, bool)> {
        let (mut flags, mut noticed) = (Vec::new(), false);
        for line in self.head.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let Some((name, value)) = line.split_once(':') else { continue };
            match name.trim_end().to_ascii_lowercase().as_str() {
                "status" => {
                    noticed |= value.contains(['R', 'O']);
                    flags.extend(value.contains('R').then_some('S'));
                }
                "x-status" => flags.extend(value.chars().filter_map(|letter| match letter {
                    'A' => Some('R'),
                    'D' => Some('T'),
                    'F' => Some('F'),
                    'T' => Some('D'),
                    _ => None,
                })),
                "x-mozilla-status" => {
                    let bits = u32::from_str_radix(value.trim(), 16).unwrap_or_default();
                    if bits & EXPUNGED != 0 {
                        return None;
                    }
                    let known = [(READ, 'S'), (REPLIED, 'R'), (MARKED, 'F'), (FORWARDED, 'P')];
                    flags.extend(known.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, flag)| flag));
                }
                _ => {}
            }
        }
        flags.sort_unstable();
        flags.dedup();
        Some((flags.into_iter().collect(), noticed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mail_programs_write_is_read() {
        let deleted = None;
        let table = [
            ("Subject: x\r\n\r\nStatus: R\r\n", Some(("", false))),
            ("Status: RO\r\nX-Status: A\r\nSubject: x\r\n\r\n", Some(("RS", true))),
            ("Status: O\r\n\r\n", Some(("", true))),
            ("X-Status: FTD\r\n\r\n", Some(("DFT", false))),
            ("X-Mozilla-Status: 0001\r\n\r\n", Some(("S", false))),
            ("X-Mozilla-Status: 1007\r\n\r\n", Some(("FPRS", false))),
            ("X-Mozilla-Status: 0009\r\nX-Mozilla-Status2: 00000000\r\n\r\n", deleted),
            ("X-Mozilla-Status: nonsense\r\n\r\n", Some(("", false))),
            ("no header", Some(("", false))),
        ];
        for (text, expected) in table {
            for cut in [1, 3, 1000] {
                let mut status = Status::default();
                text.as_bytes().chunks(cut).for_each(|piece| status.push(piece));
                let read = status.read();
                assert_eq!(read.as_ref().map(|(flags, noticed)| (flags.as_str(), *noticed)), expected, "{text}");
            }
        }
    }
}
