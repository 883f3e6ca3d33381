//! Feeds `checks/smtp_command.rs`.
#![no_main]

#[path = "../checks/smtp_command.rs"]
mod checked;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checked::check(bytes));
