//! Byte ranges (RFC 9110 §14): which parts of a file were asked for, bounded and merged.

use std::ops::Range;

/// Most ranges in one request; a header with more is ignored, and the whole file is sent.
const MOST: usize = 16;

/// Two ranges closer than this are sent as one: a part's own head is about as long.
const GAP: u64 = 80;

/// What a `Range` header asks of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// No range, or one that is to be ignored: send everything.
    Whole,
    /// These parts, in the order to be sent; never empty, never overlapping.
    Parts(Vec<Range<u64>>),
    /// None of the ranges touches the file: 416.
    Nothing,
}

/// Reads a `Range` header against a file of `size` bytes.
pub fn read(header: &str, size: u64) -> Asked {
    let Some((unit, set)) = header.split_once('=') else { return Asked::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.split(',').count() > MOST {
        return Asked::Whole;
    }
    let mut parts: Vec<Range<u64>> = Vec::new();
    let mut any = false;
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        any = true;
        match one(spec, size) {
            None => return Asked::Whole,
            Some(range) if range.is_empty() => {}
            Some(range) => parts.push(range),
        }
    }
    match (any, parts.is_empty()) {
        (false, _) => Asked::Whole,
        (true, true) => Asked::Nothing,
        (true, false) => Asked::Parts(merge(parts)),
    }
}

/// The `Content-Range` of a part.
pub fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// `a-b`, `a-` or `-n`; an empty range when it lies outside, `None` when it is not a range.
fn one(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(size.saturating_sub(suffix)..size);
    }
    let first = number(first)?;
    if last.is_empty() {
        return Some(first.min(size)..size);
    }
    let last = number(last)?;
    (last >= first).then(|| first.min(size)..last.saturating_add(1).min(size))
}

/// Digits only (`parse` would take a plus sign); what is too large for a number is simply beyond every file.
fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Ranges that overlap or nearly touch become one; the order is kept when there is nothing to merge.
fn merge(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = parts.clone();
    sorted.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP) => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    if merged.len() == parts.len() { parts } else { merged }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_range() {
        let parts = |ranges: &[(u64, u64)]| Asked::Parts(ranges.iter().map(|(first, end)| *first..*end).collect());
        assert_eq!(read("bytes=0-499", 10_000), parts(&[(0, 500)]));
        assert_eq!(read("bytes=-500", 10_000), parts(&[(9_500, 10_000)]));
        assert_eq!(read("bytes=9500-", 10_000), parts(&[(9_500, 10_000)]));
        assert_eq!(read("bytes=0-0, -1", 10_000), parts(&[(0, 1), (9_999, 10_000)]));
        assert_eq!(read("bytes=9000-8000000", 10_000), parts(&[(9_000, 10_000)]));
        assert_eq!(read("bytes=-99999999999999999999999999", 10), parts(&[(0, 10)]));
    }

    #[test]
    fn what_lies_outside_is_416_and_nonsense_is_ignored() {
        assert_eq!(read("bytes=10-", 10), Asked::Nothing);
        assert_eq!(read("bytes=0-", 0), Asked::Nothing);
        assert_eq!(read("bytes=-0", 10), Asked::Nothing);
        for header in ["bytes", "bytes=", "bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=+1-2", "bytes=1"] {
            assert_eq!(read(header, 10), Asked::Whole, "{header}");
        }
    }

    #[test]
    fn overlapping_ranges_cannot_multiply_a_file() {
        assert_eq!(merge(vec![0..1_000, 500..1_501, 1_501..10_000]).len(), 1);
        let Asked::Parts(whole) = read("bytes=0-999,500-1500,1501-", 10_000) else { panic!("no parts") };
        assert_eq!((whole.len(), whole.first().cloned()), (1, Some(0..10_000)));
        let many = format!("bytes={}", vec!["0-"; 17].join(","));
        assert_eq!(read(&many, 10_000), Asked::Whole);
        assert_eq!(read("bytes=5000-5009,0-9", 10_000), Asked::Parts(vec![5_000..5_010, 0..10]));
    }
}
