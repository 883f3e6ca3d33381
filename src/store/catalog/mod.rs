//! The catalog: every record the hub keeps, in real columns an operator can read with `sqlite3` or `psql`.
//!
//! Reads are typed methods written once in SQL both engines speak; writes are a [`Batch`], a list of
//! edits that is applied whole and durably, or not at all. Under it sits one thin seam, [`Engine`]:
//! `sqlite` (one writer thread doing group commit) and `postgres` implement it, `store::fault` breaks it.

mod chain;
mod columns;
mod commit;
mod edit;
mod engine;
mod gather;
mod handle;
pub mod lock;
pub mod mail;
mod migrations;
mod open;
pub mod property;
mod reads;
pub mod rows;
mod settings;
mod sql;
pub mod uploads;

pub mod postgres;
pub mod sqlite;

pub use edit::{Batch, Edit, Expect};
pub use engine::{After, Engine, Must, On, Row, Statement, Synced, Transaction, Value};
pub use handle::Catalog;
pub use settings::{CatalogSettings, EngineKind};
