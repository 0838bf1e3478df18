//! `strace`, which observes the system calls of a command and disturbs them.

use std::{ffi::OsStr, process::Command};

/// Log file for a test that does not read the log.
pub const NO_LOG: &str = "/dev/null";

/// `strace` of a command and all its threads, with these expressions (`-e`). The log has a line a
/// call, which starts with the id of the thread.
pub fn strace(log: &(impl AsRef<OsStr> + ?Sized), expressions: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(log);
    for expression in expressions {
        strace.args(["-e", expression]);
    }
    strace
}
