//! Monitoring: metrics for Prometheus, liveness, and readiness.
//!
//! ```text
//! the kernel  -> reading.rs  at each request, off the runtime's thread
//! the process -> health.rs   written by `run`, as it happens
//! /proc/self  -> process.rs  at each request
//! all         -> exposition.rs (text), http.rs (answers)
//! ```

mod exporter;
mod exposition;
mod health;
mod http;
mod process;
mod reading;

pub use self::{
    exporter::Exporter,
    health::{Health, Heartbeats, ListHealth, Loop},
    http::Endpoint,
};
