//! The enhanced status code (RFC 3463) of a refused message.

/// Marks the error of a message that is refused for a reason RFC 3463 or RFC 7372 has a status of its own for.
#[derive(Debug)]
pub(super) struct Status(pub &'static str);

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Status {}
