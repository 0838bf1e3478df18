//! A cluster with real API servers behind the filter. `cargo xtask test --cluster` runs it.

mod accounts;
mod guarded;
mod life;
mod lists;
