//! Waiting for conditions that have no event.

use std::{
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Long enough for every expected event on a slow and busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `happened` until it is true; fails after [`PATIENCE`] with `what`.
pub fn until(what: &str, mut happened: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !happened()? {
        if Instant::now() > deadline {
            bail!("did not happen within {PATIENCE:?}: {what}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Waits for the end of a child process; kills it and fails after [`PATIENCE`].
pub fn until_ended(child: &mut Child) -> Result<ExitStatus> {
    let ended = until("the end of a program", || Ok(child.try_wait()?.is_some()));
    if ended.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    ended.map(|()| status).context("it was killed")
}

/// Observes something that lasts for a few seconds, given as `3s`. If the machine was too slow,
/// repeats with a longer time.
pub fn while_it_lasts<T>(mut attempt: impl FnMut(&str) -> Result<T>) -> Result<T> {
    for seconds in [3, 12, 48] {
        let started = Instant::now();
        match attempt(&format!("{seconds}s")) {
            Err(_) if started.elapsed().as_secs() >= seconds => {}
            looked => return looked,
        }
    }
    bail!("this machine takes more than 48 s for a few commands")
}
