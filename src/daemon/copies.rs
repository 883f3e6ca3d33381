//! How the C library copies memory, where it chooses badly.
//!
//! glibc (2.36, of Debian 12) leaves copies of more than 2 KiB to the processor's `rep movsb`. On AMD's Zen 3 that is several times slower than
//! its own loop when the target begins a few bytes behind the source within their pages, as TLS records do behind what they are made of. A
//! program cannot change that choice once it runs: it is made from `GLIBC_TUNABLES` before `main`. So the daemon begins anew, once, as the
//! same process. See `docs/decisions/0004-copies.md`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

const TUNABLES: &str = "GLIBC_TUNABLES";
const THRESHOLD: &str = "glibc.cpu.x86_rep_movsb_threshold";
/// Said to the second life: where the C library does not take the word (a program with capabilities of its own), it is not said again.
const BEGUN: &str = "STOA_BEGUN";

/// Begins anew where that makes copies faster; goes on where it does not, or cannot be.
pub(super) fn choose() {
    if !copies_badly() || env::var_os(BEGUN).is_some() {
        return;
    }
    let (Some(tunables), Ok(program)) = (wanted(env::var_os(TUNABLES)), env::current_exe()) else { return };
    let mut words = env::args_os();
    let name = words.next().unwrap_or_else(|| program.clone().into());
    // Only a failure comes back, and it costs nothing but the speed.
    let _ = Command::new(program).arg0(name).args(words).env(TUNABLES, tunables).env(BEGUN, "1").exec();
}

/// The tunables with ours added; `None` where the administrator has chosen already.
fn wanted(set: Option<OsString>) -> Option<OsString> {
    let mut tunables = set.unwrap_or_default();
    if tunables.to_string_lossy().contains(THRESHOLD) {
        return None;
    }
    if !tunables.is_empty() {
        tunables.push(OsStr::new(":"));
    }
    tunables.push(format!("{THRESHOLD}={}", u32::MAX));
    Some(tunables)
}

/// An AMD processor that says its `rep movsb` is fast also for short copies: Zen 3 (family 25) and later.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn copies_badly() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const FAST_SHORT: u32 = 1 << 4;
    const FEATURES: u32 = 7;
    let vendor = __cpuid(0);
    let is_amd = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD";
    is_amd && vendor.eax >= FEATURES && __cpuid_count(FEATURES, 0).edx & FAST_SHORT != 0
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
fn copies_badly() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_administrator_set_is_kept() {
        let own = "glibc.cpu.x86_rep_movsb_threshold=4294967295";
        assert_eq!(wanted(None), Some(own.into()));
        assert_eq!(wanted(Some("glibc.malloc.check=1".into())), Some(format!("glibc.malloc.check=1:{own}").into()));
        assert_eq!(wanted(Some("glibc.cpu.x86_rep_movsb_threshold=2112".into())), None);
    }
}
