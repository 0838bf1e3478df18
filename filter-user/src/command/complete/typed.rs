//! The words that were typed so far, and the files that they name.

use std::{
    ffi::OsString,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{cli::Cli, command::context::context_of, context::Context, ranges::ListName};

/// The time limit of one completion. A slower answer disturbs more than it helps. A debug build is
/// what the tests run, on machines that are busy.
const LIMIT: Duration = if cfg!(test) {
    Duration::from_secs(60)
} else if cfg!(debug_assertions) {
    Duration::from_secs(2)
} else {
    Duration::from_millis(200)
};

/// The flags that say where the files are.
const PLACES: [&str; 4] = ["--config", "--ranges-file", "--bpffs", "--state-dir"];

/// The words that were typed.
pub(super) struct Typed {
    words: Vec<String>,
    started: Instant,
}

impl Typed {
    pub(super) fn new(words: &[OsString]) -> Self {
        let words = words.iter().map(|word| word.to_string_lossy().into_owned());
        Self {
            words: words.collect(),
            started: Instant::now(),
        }
    }

    /// The value that was typed for `flag`.
    fn value(&self, flag: &str) -> Option<&str> {
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            match word.strip_prefix(flag) {
                Some("") => return words.next().map(String::as_str),
                Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
                _ => {}
            }
        }
        None
    }

    /// The list that was typed, or the list `default`.
    pub(super) fn list(&self) -> Option<ListName> {
        match self.value("--list") {
            Some(name) => name.parse().ok(),
            None => Some(ListName::default()),
        }
    }

    /// The context of a command that shows something, with the same files; `None` if they are
    /// broken.
    fn context(&self) -> Option<Context> {
        let mut words = vec!["apifence".to_owned(), "status".to_owned()];
        for flag in PLACES {
            if let Some(value) = self.value(flag).filter(|value| !value.is_empty()) {
                words.extend([flag.to_owned(), value.to_owned()]);
            }
        }
        let (cli, matches) = Cli::from_words(words).ok()?;
        context_of(&cli, &matches).ok()
    }

    /// What `read` finds before the time is over; it must change nothing.
    pub(super) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Context) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let context = self.context()?;
        let (found, taken) = mpsc::sync_channel(1);
        thread::Builder::new()
            .spawn(move || found.send(read(&context)))
            .ok()?;
        let left = LIMIT.saturating_sub(self.started.elapsed());
        taken.recv_timeout(left).ok().flatten()
    }
}
