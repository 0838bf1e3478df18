//! Messages while a view has the terminal: they are held for it, because a line on the screen would
//! destroy the view.

use std::{
    mem,
    sync::{Mutex, PoisonError},
};

use anstream::adapter::strip_str;

/// The lines that are held; none if no view has the terminal.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Most lines that are held.
const MAX_HELD: usize = 1000;

/// Holds the output of this process, until dropped.
pub struct Hold(());

impl Hold {
    /// From now on all output is held.
    pub fn begin() -> Self {
        with(|held| *held = Some(Vec::new()));
        Self(())
    }

    /// Takes the lines that were held since the last time.
    pub fn take(&self) -> Vec<String> {
        with(|held| held.as_mut().map(mem::take).unwrap_or_default())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        with(|held| *held = None);
    }
}

/// Takes `text` if output is held; returns whether it is.
pub(super) fn hold(text: &str) -> bool {
    with(|held| {
        let Some(lines) = held else { return false };
        let room = MAX_HELD.saturating_sub(lines.len());
        // The view has colours of its own.
        let plain = strip_str(text).to_string();
        lines.extend(plain.lines().take(room).map(str::to_owned));
        true
    })
}

fn with<T>(act: impl FnOnce(&mut Option<Vec<String>>) -> T) -> T {
    // A vector of lines is valid at any moment.
    act(&mut HELD.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_held_until_the_end() {
        let view = Hold::begin();
        assert!(hold("\x1b[31mone\x1b[0m\ntwo\n"));
        let lines = view.take();
        // Other tests write, too.
        for line in ["one", "two"] {
            assert!(lines.iter().any(|held| held == line), "{lines:?}");
        }
        drop(view);
        assert!(!hold("three"));
    }
}
