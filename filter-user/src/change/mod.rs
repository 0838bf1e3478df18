//! A change of the policy: its effect on connections, and how it comes into force as a whole.

pub mod addition;
pub mod attach;
pub mod attached;
pub mod build;
pub mod changed;
pub mod detach;
pub mod first;
pub mod guarded;
pub mod impact;
pub mod list_editor;
mod lists_before;
mod plan;
pub mod proposal;
mod put_back;
pub mod recovery;
pub mod transaction;
pub mod upgrade;
pub mod words;
