//! How long a message is as the network sees it: every line ends in CRLF, the last one too (RFC 1939 §11, RFC 3501 §6.4.5).
//!
//! Files of ours tell it in their names (`,W=`, as other Maildir servers do), those of other programs are counted.

use memchr::memchr_iter;

/// Counts octets in pieces cut anywhere.
#[derive(Clone, Debug, Default)]
pub struct Octets {
    bytes: u64,
    /// Line ends that are one LF.
    bare: u64,
    last: Option<u8>,
}

impl Octets {
    /// The next bytes of the message.
    pub fn feed(&mut self, piece: &[u8]) {
        let before = |at: usize| at.checked_sub(1).map_or(self.last, |at| piece.get(at).copied());
        let bare = memchr_iter(b'\n', piece).filter(|at| before(*at) != Some(b'\r')).count();
        self.bare += bare as u64;
        self.bytes += piece.len() as u64;
        self.last = piece.last().copied().or(self.last);
    }

    /// What it comes to, when the message ends here.
    #[must_use]
    pub fn count(&self) -> u64 {
        let unended = self.last.is_some_and(|last| last != b'\n');
        self.bytes + self.bare + if unended { 2 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_counts_with_two_octets_of_end() {
        for (message, expected) in [
            ("", 0),
            ("a\r\n", 3),
            ("a\n", 3),
            ("a", 3),
            ("a\r", 4),
            ("\n\n", 4),
            ("a\r\nb\nc", 9),
            ("\r\r\n", 3),
            (".\r\n", 3),
        ] {
            for cut in 1..=message.len().max(1) {
                let mut octets = Octets::default();
                message.as_bytes().chunks(cut).for_each(|piece| octets.feed(piece));
                assert_eq!(octets.count(), expected, "{message:?} cut at {cut}");
            }
        }
    }
}
