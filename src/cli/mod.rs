//! The command line: `serve` and the commands around it.

/// Runs the command line; the exit code is the process's.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
