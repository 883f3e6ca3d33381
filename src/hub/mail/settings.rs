//! What mail is told: `[mail]`, `[[alias]]` and the `mail` rules of a space.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Span};

/// `[mail]`: how recipients are found and messages followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailSettings {
    /// Signs that part a name from a folder, `+` as in bob+lists; empty: none.
    pub delimiter: String,
    /// Most mailboxes and folders that one address may lead to.
    pub targets: usize,
    /// Most messages shown of one mailbox; what is beyond stays on the disk.
    pub mailbox_messages: usize,
    /// A message sent again within this time, because its client never read the `250`, is stored once; 0: always stored.
    pub redelivery: Span,
    /// Most messages remembered for that.
    pub redelivery_entries: usize,
    /// How long the same message waits to learn whether the client that brought it first has read its `250`.
    pub redelivery_wait: Span,
    /// How long what became of a message can be asked for.
    pub keep_traces: Span,
    /// Refusals written down a minute; more of them only show in the log.
    pub refusals: u32,
    /// How deep multiparts may be in one another; a message past this or one of the next is filed whole.
    pub mime_depth: usize,
    /// Most parts of a message.
    pub mime_parts: usize,
    /// Header bytes of a message that are looked at for its parts; what is behind them is not.
    pub mime_head: ByteSize,
    /// Bytes that the attachments of one message may be together once they are decoded; 0: no limit of its own.
    pub mime_decoded: ByteSize,
    /// A message whose text has so many words is filed at a drop address beside its attachments; 0: never for its text.
    pub text_words: usize,
}

impl MailSettings {
    /// How far a message is taken apart.
    #[must_use]
    pub fn mime(&self) -> MimeLimits {
        let Self { mime_depth, mime_parts, mime_head, mime_decoded, text_words, .. } = *self;
        MimeLimits { depth: mime_depth, parts: mime_parts, head: mime_head, decoded: mime_decoded, text_words }
    }
}

/// How far a message is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MimeLimits {
    /// Multiparts inside one another.
    pub depth: usize,
    /// Parts.
    pub parts: usize,
    /// Header bytes looked at.
    pub head: ByteSize,
    /// Decoded bytes of all attachments; 0: any.
    pub decoded: ByteSize,
    /// Words from which on a text is filed; 0: never.
    pub text_words: usize,
}

impl Default for MimeLimits {
    fn default() -> Self {
        MailSettings::default().mime()
    }
}

impl Default for MailSettings {
    fn default() -> Self {
        Self {
            delimiter: "+".into(),
            targets: 1000,
            redelivery: Span(Duration::from_hours(24)),
            redelivery_entries: 250_000,
            redelivery_wait: Span(Duration::from_secs(5)),
            keep_traces: Span(Duration::from_hours(30 * 24)),
            refusals: 60,
            mime_depth: 100,
            mime_parts: 10_000,
            mime_head: ByteSize(1 << 20),
            mime_decoded: ByteSize(0),
            text_words: 10,
            mailbox_messages: 1_000_000,
        }
    }
}

/// `[[alias]]`: an address that stands for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AliasSettings {
    /// `info`, `info@example.org`, `scan-*@example.org` or `*@example.org`.
    pub address: String,
    /// Users, `group:NAME`, drop addresses, other aliases.
    pub to: Vec<String>,
    /// Who may write to it.
    pub post: Post,
}

/// Who may write to an alias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Post {
    /// Anyone at all.
    #[default]
    Anyone,
    /// Whoever it leads to, signed in.
    Members,
    /// Whoever is signed in.
    Users,
}

impl Post {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Members => "members",
            Self::Users => "users",
        }
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Anyone, Self::Members, Self::Users].into_iter().find(|one| one.as_str() == text)
    }
}

/// `mail` of a space: what its drop address takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropSettings {
    /// Envelope senders it takes mail from, such as `*@example.org`; empty: any.
    pub senders: Vec<String>,
    /// Networks it takes mail from; empty: any.
    pub networks: Vec<String>,
    /// What must prove the sender of mail from outside.
    pub proof: Required,
    /// Largest message; 0: as large as the door takes.
    pub size: ByteSize,
    /// Media types (`image/*`) and names (`*.pdf`) of attachments it takes; empty: any.
    pub types: Vec<String>,
}

/// What a message from somebody not signed in must prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Required {
    /// The sender's domain signed it (RFC 6376).
    Dkim,
    /// The domain it shows as its sender stands by it (RFC 7489).
    Dmarc,
    /// Nothing.
    #[default]
    None,
    /// The envelope sender's domain sends from there (RFC 7208).
    Spf,
}
