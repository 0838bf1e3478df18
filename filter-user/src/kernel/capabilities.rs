//! The capabilities that `run` keeps once it has started.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};

/// The first three are all that the service unit grants. The others make `run` see more where it
/// has them: files of other users, and the owners of sockets.
const KEPT: [Capability; 8] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    // To load the program.
    Capability::CAP_PERFMON,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_SYS_PTRACE,
];

/// Gives up all other capabilities of this thread, and of the threads that it starts later.
///
/// # Errors
/// If the kernel refuses.
pub fn give_up_unneeded() -> Result<()> {
    let text = "give up capabilities";
    let kept = CapsHashSet::from(KEPT);
    // Only with CAP_SETPCAP. Without it, no program that this one may execute gets more either,
    // unless its file grants it.
    let bounds = caps::read(None, CapSet::Bounding).context(text)?;
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).context(text)? {
        for extra in bounds.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *extra).context(text)?;
        }
    }
    // In this order: the kernel refuses effective capabilities outside the permitted ones.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        let have = caps::read(None, set).context(text)?;
        // The filter of the unit refuses capset(2), and there is nothing to give up there.
        if !have.is_subset(&kept) {
            let left = have.intersection(&kept).copied().collect();
            caps::set(None, set, &left).context(text)?;
        }
    }
    Ok(())
}
