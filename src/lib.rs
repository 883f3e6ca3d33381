//! Stoa: one store, many doors.
//!
//! ```text
//!        peers                            operators
//!          │                                  │
//!   ┌──────▼──────┐      ┌────────────────────▼─────────────────────┐
//!   │ net         │      │ daemon    start · reload · drain · notify │
//!   │ TCP TLS     │      │ config    what it was told, checked       │
//!   │ limits time │      │ telemetry log · metric                    │
//!   └──────┬──────┘      └───────────────────────────────────────────┘
//!          │ Link                  one accepted, counted, timed, logged connection
//!   ┌──────▼──────┐
//!   │ proto       │        one folder per language: ftp smtp http …
//!   └──────┬──────┘
//!          │ Caller::perform(Act)  the only way to the data
//!   ┌──────▼──────┐
//!   │ hub         │        allow · reserve quota · plan · record · commit · publish · measure
//!   └──────┬──────┘
//!          │ Batch, bytes          the only place that knows engines
//!   ┌──────▼──────┐
//!   │ store       │        catalog: sqlite | postgres      volume: directory
//!   └─────────────┘
//!   An arrow never points up; `tests/tidy.rs` holds it.
//! ```
//!
//! Where to start reading: a command comes in at [`proto::converse`], asks the data through
//! [`hub::Caller`], and is made durable by [`store::Catalog::commit`].

pub mod cli;
pub mod config;
pub mod daemon;
pub mod error;
pub mod hub;
pub mod net;
pub mod origin;
pub mod proto;
pub mod store;
pub mod telemetry;
pub mod units;

pub use error::{Error, Kind, Result};
