//! In what pieces the kernel gives memory, and who may look at it.

/// Memory comes by pages of 4 KiB, not of 2 MiB: a daemon with nothing to do holds three megabytes instead of twenty-five, and an idle
/// connection takes a fifth less. Small FTP transfers take longer for it (`docs/performance.md`). A beginning anew keeps the choice.
pub(super) fn choose() {
    // A kernel that knows no huge pages has nothing to refuse.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Passwords pass through memory: it is written into no core dump, and no other process of this account may read it.
pub(super) fn hide() {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
