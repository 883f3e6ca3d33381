//! Words for the terminal. A reader that went away (`stoa history | head`) is no failure and no panic.

use std::fmt::Arguments;
use std::io::Write;

/// One line to standard output: what a command found.
macro_rules! say {
    ($($words:tt)*) => { $crate::cli::out::line(format_args!($($words)*)) };
}

/// One line to standard error: what a command did.
macro_rules! tell {
    ($($words:tt)*) => { $crate::cli::out::remark(format_args!($($words)*)) };
}

/// See `say!`.
pub fn line(words: Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{words}");
}

/// See `tell!`.
pub fn remark(words: Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{words}");
}
