//! Feeds `checks/ftp_arguments.rs`.
#![no_main]

#[path = "../checks/ftp_arguments.rs"]
mod checked;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checked::check(bytes));
