//! What was found out about where a message really comes from. Doors find it out; the hub only judges by it.

/// One method's result, in the words of RFC 8601 §2.7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to check: no record, no signature.
    #[default]
    None,
    /// Checked, and it proves nothing either way.
    Neutral,
    /// It is who it says.
    Pass,
    /// Probably not.
    SoftFail,
    /// It is not.
    Fail,
    /// Could not be checked now.
    TempError,
    /// Can never be checked: the record or the signature is broken.
    PermError,
}

impl Verdict {
    /// As `Authentication-Results` writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::SoftFail => "softfail",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// What SPF, DKIM, DMARC and ARC say of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// RFC 7208, of the envelope's sender.
    pub spf: Verdict,
    /// Domains whose DKIM signature (RFC 6376) holds, in A-label form.
    pub signed_by: Vec<String>,
    /// RFC 7489: the domain in `From:` is the one that sent or signed it.
    pub dmarc: Verdict,
    /// RFC 8617.
    pub arc: Verdict,
    /// The domain in `From:`, in A-label form; empty when there is none or more than one.
    pub from_domain: String,
}

impl Proof {
    /// True when it is proved that this domain sent the message: its DMARC check passed, or it signed it.
    #[must_use]
    pub fn is_from(&self, domain: &str) -> bool {
        let same = |other: &str| other.eq_ignore_ascii_case(domain);
        (self.dmarc == Verdict::Pass && same(&self.from_domain)) || self.signed_by.iter().any(|signer| same(signer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pass_proves_a_domain() {
        let mut proof =
            Proof { from_domain: "a.example".into(), signed_by: vec!["b.example".into()], ..Proof::default() };
        assert!(!proof.is_from("a.example") && proof.is_from("B.example"));
        proof.dmarc = Verdict::Fail;
        assert!(!proof.is_from("a.example"));
        proof.dmarc = Verdict::Pass;
        assert!(proof.is_from("a.example") && !proof.is_from("example"));
    }
}
