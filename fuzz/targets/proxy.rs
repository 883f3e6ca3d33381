//! Feeds `checks/proxy.rs`.
#![no_main]

#[path = "../checks/proxy.rs"]
mod checked;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checked::check(bytes));
