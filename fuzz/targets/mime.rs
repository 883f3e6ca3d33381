//! Feeds `checks/mime.rs`.
#![no_main]

#[path = "../checks/mime.rs"]
mod checked;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checked::check(bytes));
