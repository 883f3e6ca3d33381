//! The history's hash chain: numbering and linking lines inside the transaction that writes them.
//!
//! Each node has its own chain, so that nodes never wait for each other. The head is kept after it was once read;
//! a transaction that is undone must give its head back.

use std::borrow::Cow;

use super::engine::{Row, Statement, Value};
use super::rows::HistoryLine;
use crate::error::{Error, Kind, Result};

/// The last line of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub seq: i64,
    pub hash: [u8; 32],
}

/// Reads the head of a node's chain.
pub(super) const HEAD: &str = "SELECT seq, hash FROM history WHERE node = ?1 ORDER BY seq DESC LIMIT 1";

/// Adds a line, unless a line with its number is there already: then another process wrote under this node's name.
const APPEND: &str = "INSERT INTO history \
     (node, seq, at, door, account, address, verb, path, bytes, result, detail, prev, hash) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT (node, seq) DO NOTHING";

impl Head {
    /// From the answer to [`HEAD`]; an empty answer is the start of a chain.
    pub(super) fn from_rows(rows: &[Row]) -> Result<Self> {
        match rows.first().map(Vec::as_slice) {
            None => Ok(Self::default()),
            Some([Value::Int(seq), Value::Blob(hash)]) => {
                let hash = <[u8; 32]>::try_from(&hash[..])
                    .map_err(|_| Error::new(Kind::Corrupt, "the last line of the history has no proper hash"))?;
                Ok(Self { seq: *seq, hash })
            }
            Some(_) => Err(Error::new(Kind::Corrupt, "the last line of the history cannot be read")),
        }
    }

    /// Chains a line after this head, which moves on; returns the statement that writes it (one row, or taken).
    pub(super) fn append(&mut self, node: &str, line: &HistoryLine) -> Statement {
        let mut line = line.clone();
        node.clone_into(&mut line.node);
        line.seq = self.seq.saturating_add(1);
        line.prev = self.hash;
        line.hash = line.digest();
        *self = Self { seq: line.seq, hash: line.hash };
        let params = vec![
            Value::Text(line.node),
            Value::Int(line.seq),
            Value::Int(line.at),
            Value::Text(line.door),
            Value::Text(line.account),
            Value::Text(line.address),
            Value::Text(line.verb),
            Value::Text(line.path),
            Value::unsigned(line.bytes),
            Value::Text(line.result),
            Value::Text(line.detail),
            Value::hash(&line.prev),
            Value::hash(&line.hash),
        ];
        Statement { sql: APPEND, params, must: None }
    }
}

/// What a line becomes before it is chained: text no engine refuses (`PostgreSQL` has no NUL), numbers that fit.
pub(super) fn writable(mut line: HistoryLine) -> HistoryLine {
    for text in [
        &mut line.door,
        &mut line.account,
        &mut line.address,
        &mut line.verb,
        &mut line.path,
        &mut line.result,
        &mut line.detail,
    ] {
        if let Cow::Owned(clean) = without_nul(text) {
            *text = clean;
        }
    }
    line.bytes = line.bytes.min(i64::MAX.unsigned_abs());
    line
}

fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_link_to_the_one_before() {
        let mut head = Head::default();
        let first = head.append("a", &HistoryLine { verb: "create".into(), ..HistoryLine::default() });
        let after = head;
        let second = head.append("a", &HistoryLine::default());
        assert_eq!((after.seq, head.seq), (1, 2));
        assert_eq!(first.params.last(), second.params.get(11), "hash of the first is prev of the second");
    }

    #[test]
    fn every_field_is_in_the_hash() {
        let base = HistoryLine::default();
        let changed = [
            HistoryLine { node: "x".into(), ..base.clone() },
            HistoryLine { seq: 1, ..base.clone() },
            HistoryLine { at: 1, ..base.clone() },
            HistoryLine { door: "x".into(), ..base.clone() },
            HistoryLine { account: "x".into(), ..base.clone() },
            HistoryLine { address: "x".into(), ..base.clone() },
            HistoryLine { verb: "x".into(), ..base.clone() },
            HistoryLine { path: "x".into(), ..base.clone() },
            HistoryLine { bytes: 1, ..base.clone() },
            HistoryLine { result: "x".into(), ..base.clone() },
            HistoryLine { detail: "x".into(), ..base.clone() },
            HistoryLine { prev: [1; 32], ..base.clone() },
        ];
        let mut seen: Vec<_> = changed.iter().map(HistoryLine::digest).chain([base.digest()]).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), changed.len() + 1);
    }

    #[test]
    fn a_nul_from_a_peer_cannot_stop_the_history() {
        let line = writable(HistoryLine { path: "/a\0b".into(), bytes: u64::MAX, ..HistoryLine::default() });
        assert_eq!(line.path, "/a\u{fffd}b");
        assert_eq!(line.bytes, i64::MAX.unsigned_abs());
    }
}
