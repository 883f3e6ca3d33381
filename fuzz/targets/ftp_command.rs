//! Feeds `checks/ftp_command.rs`.
#![no_main]

#[path = "../checks/ftp_command.rs"]
mod checked;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checked::check(bytes));
