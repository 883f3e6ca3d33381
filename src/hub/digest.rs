//! Digests the catalog knows of files.

use crate::error::Result;
use crate::hub::caller::Caller;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::store::Node;

impl Caller {
    /// The SHA-256 of a file as this node shows it, where it was computed when it was written; `None` when nobody did or the file is
    /// another one by now. Needs `read`.
    ///
    /// # Errors
    /// The verdict's, the catalog's.
    pub async fn digest(&self, path: &TreePath, node: &Node) -> Result<Option<[u8; 32]>> {
        let view = self.hub().view();
        view.allow(self.account(), Verb::Read, path)?;
        let Some((space, rel)) = view.space_of(path) else { return Ok(None) };
        let row = self.hub().catalog().file(&space.key, rel.as_str()).await?;
        Ok(row.filter(|row| row.size == node.size && row.modified == node.modified).and_then(|row| row.sha256))
    }
}
