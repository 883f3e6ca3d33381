//! One reading connection on one thread; all of them take from the same bounded queue.

use std::path::Path;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::connection::{prepare, rows, word};
use crate::error::Result;
use crate::store::catalog::{Row, Statement};

/// A statement and who waits for its rows.
pub(super) struct Question {
    pub statement: Statement,
    pub reply: oneshot::Sender<Result<Vec<Row>>>,
}

/// A connection that cannot write.
pub(super) struct Reader {
    connection: Connection,
}

impl Reader {
    pub(super) fn open(file: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags).map_err(word)?;
        prepare(&connection).map_err(word)?;
        Ok(Self { connection })
    }

    /// Answers until nobody can ask any more. Waiting happens under the lock: the next free thread waits for the lock.
    pub(super) fn run(self, questions: &Mutex<mpsc::Receiver<Question>>) {
        loop {
            let next = questions.lock().blocking_recv();
            let Some(Question { statement, reply }) = next else { return };
            // The asker may be gone since; then nobody needs the rows.
            if !reply.is_closed() {
                let _ = reply.send(rows(&self.connection, &statement));
            }
        }
    }
}
