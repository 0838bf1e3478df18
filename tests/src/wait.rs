//! Waiting for what gives no event.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Long enough for anything that should happen at all, on a slow and busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `happened` again and again until it says so; fails after [`PATIENCE`], naming `what`.
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
