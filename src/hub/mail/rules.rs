//! What a drop address takes: from whom, from where, how large, which files.

use ipnet::IpNet;

use super::Envelope;
use super::filing::FileName;
use super::pattern::Pattern;
use super::proof::{Proof, Verdict};
use super::settings::{DropSettings, Required};
use crate::error::{Error, Kind, Result};
use crate::hub::Caller;
use crate::hub::roster::network_of;
use crate::units::ByteSize;

/// The rules of one space, ready to be asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct DropRules {
    senders: Vec<Pattern>,
    networks: Vec<IpNet>,
    proof: Required,
    size: Option<u64>,
    types: Vec<Pattern>,
    /// The types as they were written, for the reply.
    wanted: String,
}

impl DropRules {
    /// Reads them; what is wrong goes to `wrong`.
    pub(crate) fn compile(settings: &DropSettings, wrong: &mut Vec<String>) -> Self {
        let mut patterns = |key: &str, texts: &[String]| {
            let mut read = Vec::with_capacity(texts.len());
            for text in texts {
                match Pattern::parse(text).filter(|_| !text.trim().is_empty()) {
                    Some(pattern) => read.push(pattern),
                    None => wrong.push(format!("mail.{key}: `{text}` may have one `*`")),
                }
            }
            read
        };
        let (senders, types) = (patterns("senders", &settings.senders), patterns("types", &settings.types));
        let mut networks = Vec::with_capacity(settings.networks.len());
        for text in &settings.networks {
            match network_of(text) {
                Ok(network) => networks.push(network),
                Err(what) => wrong.push(format!("mail.networks: {what}")),
            }
        }
        let size = Some(settings.size.0).filter(|size| *size > 0);
        Self { senders, networks, proof: settings.proof, size, types, wanted: settings.types.join(", ") }
    }

    /// The verdict at RCPT: who, from where, how large.
    pub(super) fn greet(&self, caller: &Caller, sender: &str, local: &str, size: Option<u64>) -> Result<()> {
        let peer = caller.origin().peer.ip().to_canonical();
        if !self.networks.is_empty() && !self.networks.iter().any(|network| network.contains(&peer)) {
            return Err(Error::new(Kind::Denied, format!("{local} takes no mail from your network")));
        }
        let sender = sender.to_lowercase();
        if !self.senders.is_empty() && !self.senders.iter().any(|pattern| pattern.fits(&sender)) {
            return Err(Error::new(Kind::Denied, format!("{local} takes no mail from <{sender}>")));
        }
        self.fits(local, size.unwrap_or(0))
    }

    /// What came is from whom it says: who has signed in has proved it.
    pub(super) fn proved(&self, caller: &Caller, envelope: &Envelope, name: &str) -> Result<()> {
        let domain = envelope.sender.rsplit_once('@').map_or("", |(_, domain)| domain);
        let same = |other: &str| !domain.is_empty() && other.eq_ignore_ascii_case(domain);
        let holds = |so: &dyn Fn(&Proof) -> bool| envelope.proof.as_ref().is_some_and(so);
        let (proved, how) = match self.proof {
            Required::None => return Ok(()),
            Required::Dkim => {
                (holds(&|proof| proof.signed_by.iter().any(|by| same(by))), "a DKIM signature of the sender's domain")
            }
            // The domain that is shown must be the one the rules for senders were asked about.
            Required::Dmarc => (
                holds(&|proof| proof.dmarc == Verdict::Pass && same(&proof.from_domain)),
                "a DMARC pass of the sender's domain",
            ),
            Required::Spf => (holds(&|proof| proof.spf == Verdict::Pass), "an SPF pass of the sender's domain"),
        };
        match proved || !caller.is_guest() {
            true => Ok(()),
            false => Err(Error::new(Kind::Denied, format!("{name} takes mail from outside only with {how}"))),
        }
    }

    /// The size is one it takes.
    pub(super) fn fits(&self, name: &str, size: u64) -> Result<()> {
        match self.size {
            Some(most) if size > most => {
                Err(Error::new(Kind::TooLarge, format!("{name} takes messages of at most {}", ByteSize(most))))
            }
            _ => Ok(()),
        }
    }

    /// A file it takes, by its media type or its name.
    pub(super) fn wants(&self, name: &str, file: &FileName) -> Result<()> {
        let (text, media) = (file.text.to_lowercase(), file.media.as_str());
        if self.types.is_empty() || self.types.iter().any(|pattern| pattern.fits(media) || pattern.fits(&text)) {
            return Ok(());
        }
        let says = format!("{name} files only {}; {} is {media}", self.wanted, file.text);
        Err(Error::new(Kind::Invalid, says))
    }
}
