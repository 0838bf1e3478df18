//! What `run` keeps true: what the files, the node and its interfaces say is what packets meet.
//!
//! Three threads, none of which waits for another: `guard` keeps the filter on the interfaces, `follower` puts in force what the files
//! say, and `log` tells of refused packets. Before them `start` sees to it that there is a policy.

mod alerts;
mod drop_log;
mod follower;
mod guard;
mod log;
mod logger;
mod request;
pub mod run;
mod start;

pub(crate) use self::{
    follower::{Channels, follow},
    guard::{Shared, Wanted, start as guard},
    log::Logs,
    request::Request,
    start::{Compiled, start},
};
