//! A policy comes into force together with its list in the ranges file, or neither does.
//!
//! [`Transaction`] -> [`Transaction::stage`] -> [`StagedTransaction`] ->
//! [`StagedTransaction::activate`]. A staged transaction that is dropped undoes itself.

use std::{path::Path, time::Duration};

use anyhow::Result;
use filter_common::layout::Trial;
use jiff::Timestamp;

use super::build::{keep, report_unsaved};
use crate::{
    clock::{Clocks, to_second},
    context::Context,
    kernel::bpf::{Maps, PolicyState, Slot, Staging},
    policy::Policy,
    ranges::Lists,
    store::{Committed, Pending, Staged, StagedPolicy},
    ui::{output::eprint, progress::Progress},
};

/// The parts of a change that come into force together.
pub(crate) struct Transaction<'a> {
    pub(crate) context: &'a Context,
    /// The change as it was begun.
    pub(crate) staging: Staging,
    pub(crate) policy: &'a Policy,
    /// The new file of a list, if the transaction replaces one.
    pub(crate) file: Option<Staged>,
    /// The lists to save in the state directory. A provisional change, which a reboot ends, saves
    /// nothing.
    pub(crate) saves: Option<&'a Lists>,
    /// Whether the saved policy names the interfaces of this command's settings; see [`keep`].
    pub(crate) names_interfaces: bool,
    /// Makes the change provisional for this long. Without a `file`, `trial` tells where its list
    /// is.
    pub(crate) within: Option<Duration>,
    /// The kind of a provisional change.
    pub(crate) trial: Trial,
}

impl<'a> Transaction<'a> {
    /// A change to `policy` in `maps`, for good, that leaves the files alone.
    ///
    /// # Errors
    /// If a change waits for its confirmation, or the kernel refuses.
    pub(crate) fn begin(context: &'a Context, maps: &Maps, policy: &'a Policy) -> Result<Self> {
        Ok(Self::new(context, maps.begin()?, policy))
    }

    /// The same for a change that was begun as `staging`.
    pub(crate) const fn new(context: &'a Context, staging: Staging, policy: &'a Policy) -> Self {
        Self {
            context,
            staging,
            policy,
            file: None,
            saves: None,
            names_interfaces: false,
            within: None,
            trial: Trial::None,
        }
    }

    /// Writes the policy into the inactive slot and the files next to the ones they replace. No
    /// packet meets the policy yet.
    ///
    /// # Errors
    /// If the kernel or a disk refuses; nothing changed then.
    pub(crate) fn stage<'m>(
        self,
        maps: &'m mut Maps,
        progress: &Progress,
    ) -> Result<StagedTransaction<'m>> {
        let (policy, within) = (self.policy, self.within);
        let saved = self.saves.filter(|_| within.is_none()).and_then(|lists| {
            let of_policy = (&policy.settings, &policy.cluster);
            keep(self.context, lists, of_policy, self.names_interfaces)
        });
        progress.expect(policy.sources().len());
        let (file, pending) = match within {
            None => (self.file, None),
            Some(_) => (None, self.file.map(Staged::park).transpose()?),
        };
        let inactive = Inactive {
            maps,
            pending,
            is_active: false,
        };
        let done = |more| progress.advance(more);
        let slot = self
            .staging
            .fill(inactive.maps, policy, file.is_some(), &done)?;
        Ok(StagedTransaction {
            inactive,
            slot,
            file,
            saved,
            within,
            trial: self.trial,
        })
    }

    /// Stages and activates. Returns the deadline of a provisional change.
    ///
    /// # Errors
    /// If one of them fails; nothing changed then.
    pub(crate) fn put_in_force(
        self,
        maps: &mut Maps,
        progress: &Progress,
    ) -> Result<Option<Timestamp>> {
        self.stage(maps, progress)?.activate()
    }
}

/// A transaction whose policy is complete in the inactive slot.
pub(crate) struct StagedTransaction<'m> {
    inactive: Inactive<'m>,
    slot: Slot,
    file: Option<Staged>,
    saved: Option<StagedPolicy>,
    within: Option<Duration>,
    trial: Trial,
}

impl StagedTransaction<'_> {
    /// Selects the policy in maps that no program reads yet.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn select_unread(&mut self) -> Result<()> {
        self.inactive.maps.select(self.slot)
    }

    /// Gives the directory of new maps its lasting name.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub(crate) fn publish(&mut self, directory: &Path) -> Result<()> {
        self.inactive.maps.publish(directory)
    }

    /// Puts the files and the policy in force. Returns the deadline of a provisional change.
    ///
    /// Packets meet the old policy until `select`. A process that dies before that leaves a state
    /// that [`recover`](super::recovery::recover) completes or takes back. The caller reports the
    /// new policy, then records it in the history and calls [`clean_up`].
    ///
    /// # Errors
    /// If the kernel or a disk refuses; nothing changed then.
    pub(crate) fn activate(self) -> Result<Option<Timestamp>> {
        let Self {
            mut inactive, slot, ..
        } = self;
        let maps = &mut *inactive.maps;
        let until = if let Some(time) = self.within {
            maps.note_trial(slot, self.trial)?;
            let now = Clocks::now()?;
            let until = maps.select_provisionally(slot, time)?;
            Some(to_second(now.wall_at_boot(until)))
        } else {
            let committed = self.file.map(Staged::commit).transpose()?;
            let saved = self.saved.and_then(|saved| report_unsaved(saved.commit()));
            if let Err(error) = maps.select(slot) {
                if let Some(saved) = saved {
                    saved.undo();
                }
                committed.map_or(Ok(()), Committed::undo)?;
                return Err(error);
            }
            None
        };
        inactive.is_active = true;
        Ok(until)
    }
}

/// A generation that is not active yet. If it is dropped, it loses its mark, so that recovery does
/// not complete it, and gives back its memory.
struct Inactive<'m> {
    maps: &'m mut Maps,
    /// The list of a provisional change, next to the ranges file.
    pending: Option<Pending>,
    is_active: bool,
}

impl Drop for Inactive<'_> {
    fn drop(&mut self) {
        if self.is_active {
            return;
        }
        // The failure that led here is the one to report.
        if let Ok(PolicyState::Active(current)) = self.maps.standing() {
            let _ = self.maps.mark(current.other(), false);
            let _ = self.maps.free_previous();
        }
        self.pending.iter().for_each(Pending::remove);
    }
}

/// Frees the memory of the generation before, and makes room for the usage of the active ranges.
/// The active policy does not depend on it, so a failure is a warning.
pub(crate) fn clean_up(maps: &mut Maps) {
    if let Err(error) = maps.free_previous() {
        eprint(format_args!(
            "warning: clean up the previous generation: {error:#}: the next change tries again"
        ));
    }
    if let Err(error) = maps.make_room_for_usage() {
        eprint(format_args!(
            "warning: {error:#}: the packets of some ranges are not counted"
        ));
    }
}
