//! The first start: without anybody who could sign in, one administrator is made.

use std::io::Write;
use std::path::Path;

use super::data;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::hub::account::ADMIN_GROUP;
use crate::store::{AccountKind, AccountRow, HistoryFilter, HistoryLine};

/// Commands looked at for one that made a user.
const COMMANDS: usize = 10_000;

/// Its sign-in name.
const NAME: &str = "admin";

/// Makes the first administrator when there is no account and never was; true when it was made.
///
/// The password is printed once to a terminal and written to `data/admin-password` (0600); it never reaches the journal.
///
/// # Errors
/// The file cannot be written, or the account cannot be made.
pub async fn administrator(hub: &Hub, data: &Path) -> Result<bool> {
    // Who removed all accounts by command wants none; files taken in and spaces made before the first start say nothing about that.
    let filter = HistoryFilter { door: Some("cli".into()), limit: COMMANDS, ..HistoryFilter::default() };
    let is_of_a_user = |line: &HistoryLine| line.detail.contains(" the user ");
    if !hub.accounts().is_empty() || hub.history(&filter).await?.iter().any(is_of_a_user) {
        return Ok(false);
    }
    let path = data::admin_password(data);
    // A start that was cut short between file and account leaves the file: its password still counts.
    let password = match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= LETTERS_WANTED => text.trim().to_owned(),
        _ => {
            let password = made_up()?;
            let _ = std::fs::remove_file(&path);
            data::private(&path, format!("{password}\n").as_bytes())?;
            password
        }
    };
    let row = AccountRow {
        name: NAME.to_owned(),
        kind: AccountKind::User,
        groups: vec![ADMIN_GROUP.to_owned()],
        root: "/".to_owned(),
        ..AccountRow::default()
    };
    hub.put_account(row, Some(password.as_bytes()), true).await?;
    announce(&path, &password);
    Ok(true)
}

/// Records the space that a server without any offers.
///
/// # Errors
/// `Unavailable` when the catalog cannot be written.
pub async fn space(hub: &Hub) -> Result<()> {
    hub.keep_first_space().await
}

fn announce(path: &Path, password: &str) {
    tracing::info!(file = %path.display(), "made the first administrator `{NAME}`; its password is in the file, change it with `stoa user passwd {NAME}`");
    // The journal is read by more people than this terminal.
    if std::env::var_os("JOURNAL_STREAM").is_none() {
        let mut terminal = std::io::stderr().lock();
        let _ = writeln!(terminal, "\n  first sign-in: user {NAME}, password {password}\n");
    }
}

/// Letters of a password that was made up.
const LETTERS_WANTED: usize = 24;

/// A password nobody can guess and everybody can type: 24 letters and digits in groups, 118 bits.
///
/// # Errors
/// `Internal` when the system gives no random numbers.
pub fn made_up() -> Result<String> {
    // Without 0 o 1 l i. Bytes above the last full round are dropped, so that no letter is likelier than another.
    const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
    let round = 256 / LETTERS.len() * LETTERS.len();
    let mut text = String::new();
    let mut count = 0;
    while count < LETTERS_WANTED {
        let mut bytes = [0_u8; 64];
        getrandom::fill(&mut bytes).map_err(|error| Error::internal(format!("no random numbers: {error}")))?;
        for byte in bytes.into_iter().map(usize::from).filter(|byte| *byte < round).take(LETTERS_WANTED - count) {
            if count > 0 && count % 6 == 0 {
                text.push('-');
            }
            text.extend(LETTERS.get(byte % LETTERS.len()).map(|letter| char::from(*letter)));
            count += 1;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_password_is_long_and_never_the_same() {
        let (one, other) = (made_up().unwrap(), made_up().unwrap());
        assert_eq!(one.len(), LETTERS_WANTED + 3);
        assert_ne!(one, other);
    }
}
