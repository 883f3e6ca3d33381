//! PROXY headers, version 1 and 2: what is asked for to complete one is always more than nothing, and bounded.

use stoa::net::proxy::{Parsed, parse};

/// Panics when something is wrong.
pub fn check(bytes: &[u8]) {
    let mut held = 0;
    loop {
        match parse(bytes.get(..held).unwrap_or(bytes)) {
            Ok(Parsed::Need(more)) => {
                assert!(more > 0 && more <= 64 << 10, "asks for {more} bytes");
                held += more;
                if held > bytes.len() {
                    return;
                }
            }
            Ok(Parsed::Done(_)) | Err(_) => return,
        }
    }
}
