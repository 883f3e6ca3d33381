//! The integration tests: one binary, one module a subject.
mod accounts;
mod config;
mod contract;
mod daemon;
mod mail;
mod smtp;
mod volume;
mod postgres;
mod hub;
