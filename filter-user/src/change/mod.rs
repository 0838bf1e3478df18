//! A change of the policy: what it does to connections, and how it comes into force, all of it or nothing.

pub mod attach;
pub mod attached;
pub mod build;
pub mod detach;
pub mod first;
pub mod impact;
pub mod list_editor;
pub mod proposal;
pub mod recovery;
pub mod transaction;
pub mod upgrade;
pub mod words;
