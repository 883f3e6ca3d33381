//! The integration tests: one binary, one module a subject.

#![allow(
    clippy::format_collect,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod access;
mod accounts;
mod adoption;
mod archives;
mod attachments;
mod body_ends;
mod browser;
mod catalog_away;
mod compress;
mod config;
mod contract;
mod corpus;
mod daemon;
mod delivery;
mod docs;
mod driver;
mod fast_path;
mod folder_pages;
mod forms;
mod forwarded;
mod frames;
mod ftp;
mod ftp_clients;
mod ftp_commands;
mod ftp_data;
mod ftp_kinds;
mod ftp_large;
mod ftp_peers;
mod hidden;
mod hostile_ftp;
mod http;
mod http2;
mod http2_frames;
mod http_answers;
mod http_security;
mod http_transcripts;
mod hub;
mod keep_both;
mod kill;
mod large_mail;
mod lifecycle;
mod limits;
mod lmtp;
mod mail;
mod mail_corpora;
mod mail_dmarc;
mod mail_ends;
mod mail_names;
mod mail_policy;
mod mail_signed;
mod mail_spf;
mod mail_structure;
mod mailbag;
mod mailbox;
mod mailstorm;
mod names;
mod net;
mod operations;
mod pop3;
mod post;
mod postgres;
mod prefix;
mod proof;
mod readiness;
mod recipients;
mod refusals;
mod refused_bodies;
mod refused_disk;
mod replay;
mod resume;
mod scanner;
mod sites;
mod slow_peers;
mod smtp;
mod smuggling;
mod sni;
mod spine;
mod staging;
mod transcripts;
mod trouble;
mod uploads;
mod verdict;
mod volume;
mod web;
mod webdav;
mod webdav_clients;
mod webdav_locks;
mod world;
mod zip_readers;
