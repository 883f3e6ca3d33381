//! Passwords: read from standard input, a file or a prompt without echo; or made up.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::Failure;

/// Longest password in bytes.
const LONGEST: usize = 1024;
/// Shortest password a person may choose.
const SHORTEST: usize = 8;

/// Where the password comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct PasswordArgs {
    /// Take the password from the first line of this file (`-`: standard input) instead of a prompt.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordArgs {
    /// The password: from the file, or typed twice at a terminal, or the first line of standard input.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        let password = match &self.password_file {
            Some(file) if file != Path::new("-") => from_file(file)?,
            None if std::io::stdin().is_terminal() => prompted()?,
            _ => first_line(std::io::stdin().lock()).map_err(|error| Failure::io("standard input", &error))?,
        };
        match password.len() {
            0 => {
                Err(Failure::usage("no password given; type one, pipe one into standard input, or use --password-file"))
            }
            1..SHORTEST => {
                Err(Failure::usage(format!("the password is shorter than {SHORTEST} bytes; choose a longer one")))
            }
            _ => Ok(password),
        }
    }
}

fn from_file(file: &Path) -> Result<Vec<u8>, Failure> {
    let open = std::fs::File::open(file).and_then(|file| first_line(std::io::BufReader::new(file)));
    open.map_err(|error| Failure::io(file.display(), &error))
}

fn first_line(from: impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(LONGEST as u64 + 2).read_until(b'\n', &mut line)?;
    while line.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        line.pop();
    }
    match line.len() > LONGEST {
        true => Err(std::io::Error::other(format!("the password is longer than {LONGEST} bytes"))),
        false => Ok(line),
    }
}

fn prompted() -> Result<Vec<u8>, Failure> {
    let (first, second) = (hidden("Password: ")?, hidden("Again: ")?);
    match first == second {
        true => Ok(first),
        false => Err(Failure::usage("the two passwords differ; try again")),
    }
}

/// One line typed without echo; the terminal is set back whatever happens.
fn hidden(prompt: &str) -> Result<Vec<u8>, Failure> {
    let terminal = std::io::stdin();
    let failed = |error: rustix::io::Errno| Failure::io("the terminal", &error.into());
    let before = tcgetattr(&terminal).map_err(failed)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    quiet.local_modes.insert(LocalModes::ECHONL);
    let _ = write!(std::io::stderr().lock(), "{prompt}");
    tcsetattr(&terminal, OptionalActions::Flush, &quiet).map_err(failed)?;
    let line = first_line(terminal.lock());
    let _ = tcsetattr(&terminal, OptionalActions::Flush, &before);
    line.map_err(|error| Failure::io("the terminal", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_counts() {
        assert_eq!(first_line(&b"geheim 1\r\nrest"[..]).unwrap(), b"geheim 1");
        assert!(first_line(&vec![b'x'; LONGEST + 1][..]).is_err());
    }
}
