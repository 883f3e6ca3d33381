//! Between two programs of one machine (a reverse proxy and this daemon, say) nothing can be congested. Where the system estimates a way's
//! capacity by default and paces what it sends (BBR), that costs processor time and up to half of the rate.

use std::net::IpAddr;
use std::os::fd::AsFd;

use rustix::net::sockopt;

/// Every kernel has it, and every user may choose it.
const PLAIN: &str = "reno";

/// For a socket with this address at either end; what a listener accepts inherits its choice.
pub(super) fn unpace(socket: impl AsFd, end: IpAddr) {
    if end.to_canonical().is_loopback() {
        // Where it cannot be, the system's choice stays.
        let _ = sockopt::set_tcp_congestion(socket, PLAIN);
    }
}
