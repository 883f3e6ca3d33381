//! Moving a file to a socket without copying it through us.

use std::fs::File;
use std::sync::Arc;

use super::Stream;

/// Sends `len` bytes of `file` from `offset`: `sendfile` on plain TCP, a reused buffer under TLS. `on_progress` is called with each
/// amount sent, for stall detection. A file that became shorter is an error.
///
/// # Errors
/// The socket's or the disk's.
pub async fn send_file(
    _stream: &mut Stream,
    _file: Arc<File>,
    _offset: u64,
    _len: u64,
    _on_progress: &mut (dyn FnMut(u64) + Send),
) -> std::io::Result<()> {
    todo!()
}
