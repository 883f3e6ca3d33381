//! Where the records of a TLS stream end, seen from outside: a stream that ends inside a record was cut.

/// Type, version and length.
const HEAD: usize = 5;

/// Follows the records of what a peer sends.
#[derive(Default)]
pub(super) struct Records {
    head: [u8; HEAD],
    /// Bytes of the head that came.
    came: usize,
    /// Bytes of the record's content that have still to come.
    left: usize,
}

impl Records {
    /// The next bytes of the stream.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            if self.left > 0 {
                let skip = self.left.min(bytes.len());
                self.left -= skip;
                bytes = bytes.get(skip..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.came) {
                *place = first;
            }
            self.came += 1;
            bytes = bytes.get(1..).unwrap_or_default();
            if self.came == HEAD {
                let [.., high, low] = self.head;
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.came = 0;
            }
        }
    }

    /// A record has begun and is not complete.
    pub(super) fn is_inside(&self) -> bool {
        self.came > 0 || self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_inside_a_record_is_seen_wherever_the_stream_is_cut() {
        let stream = [&[23, 3, 3, 0, 4][..], b"abcd", &[23, 3, 3, 1, 0], &[7; 256], &[21, 3, 3, 0, 0]].concat();
        let ends = [0, 9, 270, 275];
        for step in [1, 2, 3, 7, 1_000] {
            for end in 0..=stream.len() {
                let mut records = Records::default();
                for piece in stream[..end].chunks(step) {
                    records.pass(piece);
                }
                assert_eq!(records.is_inside(), !ends.contains(&end), "{end} of {} by {step}", stream.len());
            }
        }
    }
}
