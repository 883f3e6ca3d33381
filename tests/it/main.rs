//! The integration tests: one binary, one module a subject.
mod accounts;
mod config;
mod contract;
mod daemon;
mod http;
mod hub;
mod mail;
mod net;
mod postgres;
mod smtp;
mod transcripts;
mod verdict;
mod volume;
mod world;
