//! Content codings (RFC 9110 §8.4, §12.5.3): which ones a client takes, and which of ours it gets.

use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// A coding we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    Brotli,
    Gzip,
    Zstd,
}

impl Coding {
    /// All of them, the densest first.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// As headers and settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// What the name of a file compressed beforehand ends in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// The coding of a name.
    pub fn named(name: &str) -> Option<Self> {
        let name = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
        Self::ALL.into_iter().find(|coding| coding.name().eq_ignore_ascii_case(name))
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What a client takes, each with its weight in thousandths; 0: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    weights: [u16; 3],
    identity: u16,
}

impl Accepted {
    /// Of a request. Without the header nothing is compressed: programs that do not ask seldom know what to do with it.
    pub fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let mut seen = [None; 3];
        let (mut identity, mut star) = (None, None);
        for item in lines.flat_map(|line| line.split(',')) {
            let mut parts = item.split(';');
            let name = parts.next().unwrap_or_default().trim();
            let weight = parts.find_map(|part| weight(part.trim())).unwrap_or(1_000);
            match Coding::named(name) {
                Some(coding) => seen.iter_mut().skip(coding as usize).take(1).for_each(|place| *place = Some(weight)),
                None if name == "*" => star = Some(weight),
                None if name.eq_ignore_ascii_case("identity") => identity = Some(weight),
                None => {}
            }
        }
        let weights = seen.map(|weight| weight.or(star).unwrap_or(0));
        Self { weights, identity: identity.unwrap_or(0) }
    }

    /// The best of these for the client; the first of those it likes alike.
    pub fn best(self, of: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best = None;
        let mut most = self.identity.max(1) - 1;
        for coding in of {
            let weight = self.weights.get(coding as usize).copied().unwrap_or(0);
            if weight > most {
                (best, most) = (Some(coding), weight);
            }
        }
        best
    }

    /// Those it takes, its favourites first, ours first among equals.
    pub fn ranked(self) -> Vec<Coding> {
        let mut left = Coding::ALL.to_vec();
        let mut ranked = Vec::new();
        while let Some(coding) = self.best(left.iter().copied()) {
            left.retain(|other| *other != coding);
            ranked.push(coding);
        }
        ranked
    }
}

/// `;q=0.5` as 500.
fn weight(text: &str) -> Option<u16> {
    let value = text.strip_prefix("q=").or_else(|| text.strip_prefix("Q="))?;
    let value: f32 = value.trim().parse().ok()?;
    // RFC 9110 §12.4.2: three digits at most, 1 at most.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    Some((value.clamp(0.0, 1.0) * 1_000.0) as u16)
}

/// The codings of a plain list as bits: what a response is kept by. `None` where weights or more than one line make it not plain.
pub fn plain(value: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains([';', '*']))?;
    Some(text.split(',').filter_map(|name| Coding::named(name.trim())).fold(0, |bits, coding| bits | coding.bit()))
}

/// The same of a request's headers.
pub fn plain_of(headers: &HeaderMap) -> Option<u8> {
    let mut lines = headers.get_all(ACCEPT_ENCODING).iter();
    let bits = lines.next().map_or(Some(0), |value| plain(value.as_bytes()))?;
    lines.next().is_none().then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(text: &str) -> Accepted {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, text.parse().unwrap());
        Accepted::of(&headers)
    }

    #[test]
    fn the_clients_weights_come_first_and_our_order_after_them() {
        use Coding::{Brotli, Gzip, Zstd};
        for (text, best) in [
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip;q=1.0, br;q=0.5", Some(Gzip)),
            ("br;q=0, *", Some(Zstd)),
            ("x-gzip", Some(Gzip)),
            ("GZIP", Some(Gzip)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.9", Some(Gzip)),
            ("gzip;q=0", None),
            ("*;q=0", None),
            ("deflate", None),
            ("", None),
            ("gzip;q=nonsense", Some(Gzip)),
        ] {
            assert_eq!(accepted(text).best(Coding::ALL), best, "{text}");
        }
        assert_eq!(Accepted::of(&HeaderMap::new()).best(Coding::ALL), None);
        assert_eq!(accepted("gzip, br;q=0.9").ranked(), [Gzip, Brotli]);
    }

    #[test]
    fn only_plain_lists_are_kept_by() {
        assert_eq!(plain(b"gzip, deflate, br, zstd"), Some(7));
        assert_eq!((plain(b""), plain(b"identity"), plain(b"deflate")), (Some(0), Some(0), Some(0)));
        assert_eq!((plain(b"gzip;q=0"), plain(b"*"), plain(b"\xff")), (None, None, None));
        assert_ne!(plain(b"gzip"), plain(b"br"));
    }
}
