//! The integration tests: one binary, one module a subject.

#![allow(clippy::indexing_slicing, clippy::print_stdout, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what the tests share may panic as the tests do")]

mod accounts;
mod adoption;
mod browser;
mod config;
mod contract;
mod daemon;
mod driver;
mod ftp;
mod http;
mod hub;
mod kill;
mod lifecycle;
mod mail;
mod net;
mod postgres;
mod replay;
mod smtp;
mod spine;
mod transcripts;
mod verdict;
mod volume;
mod world;
