//! The author of a change, and the command: stored with each generation and each list, so that a
//! colleague can be asked.

use std::{env, fmt, path::Path};

use clap::CommandFactory as _;
use nix::unistd::{Uid, User, getuid};
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use crate::cli::Cli;

/// The author of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Author {
    /// The command as typed, from the verb on; or another cause of the change.
    pub command: String,
    /// The name of the user, before `sudo` and the like; null if it is unknown.
    pub user: Option<String>,
    /// The uid of the same user; null if it is unknown.
    pub uid: Option<u32>,
}

/// The command for an edited file.
const EDIT: &str = "edit";

/// The maximum length of a command; the rest is cut off.
const MAX_SHOWN_LEN: usize = 160;

/// The audit uid of a process without a login: `-1` (`AUDIT_UID_UNSET`).
const AUDIT_UID_UNSET: u32 = u32::MAX;

impl Author {
    /// The user of this process.
    pub fn of_this_process() -> Self {
        let words = env::args_os().skip(1);
        let words: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
        // Words before the verb say where the files are, not what was done.
        let all = Cli::command();
        let is_verb = |word: &String| all.find_subcommand(word).is_some();
        let verb = words.iter().position(is_verb).unwrap_or_default();
        let mut command = words[verb..].join(" ");
        if let Some((end, _)) = command.char_indices().nth(MAX_SHOWN_LEN) {
            command.truncate(end);
            command.push_str("...");
        }
        Self::with(command, person())
    }

    /// The user of this process, for a `command` that another one makes for the user.
    pub fn of_command(command: &str) -> Self {
        Self::with(command.to_owned(), person())
    }

    /// The owner of the file at `path`, the likely author of its edit.
    pub fn of_edit(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let owner = std::fs::metadata(path).map(|found| found.uid()).ok();
        Self::with(format!("{EDIT} {}", path.display()), owner)
    }

    fn with(command: String, uid: Option<u32>) -> Self {
        let user = uid.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
        Self {
            command,
            user: user.map(|user| user.name),
            uid,
        }
    }

    /// The verbs of the command, without arguments.
    pub fn verb(&self) -> String {
        let mut words = self.command.split_whitespace();
        match (words.next(), words.next()) {
            (Some("ranges"), Some(verb)) => format!("ranges {verb}"),
            (Some(EDIT), _) => EDIT.to_owned(),
            (Some(verb), _) => verb.to_owned(),
            (None, _) => "a command".to_owned(),
        }
    }
}

impl Author {
    /// The verb and the user in short form: `ranges add, alice`.
    pub fn short(&self) -> String {
        let verb = self.verb();
        match self.person() {
            Some(person) => format!("{verb}, {person}"),
            None => verb,
        }
    }

    /// The user: the name, or the number of one without a name.
    pub fn person(&self) -> Option<String> {
        match (&self.user, self.uid) {
            (Some(user), _) => Some(user.clone()),
            (None, uid) => uid.map(|uid| format!("user {uid}")),
        }
    }
}

/// For use in a sentence: `ranges add 192.0.2.1` by alice.
impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.command)?;
        match (&self.user, self.uid) {
            (Some(user), _) => write!(f, " by {user}"),
            (None, Some(uid)) => write!(f, " by user {uid}"),
            (None, None) => Ok(()),
        }
    }
}

/// A word of a command, quoted for a shell.
pub fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:,=@%+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The user who started this: the one that `sudo`, `doas` or `pkexec` report, if this process is
/// root's; else the login user; else the process's own.
fn person() -> Option<u32> {
    let own = getuid().as_raw();
    if own != 0 {
        return Some(own);
    }
    let noted = |name| env::var(name).ok()?.parse().ok();
    let named = || {
        Some(
            User::from_name(&env::var("DOAS_USER").ok()?)
                .ok()??
                .uid
                .as_raw(),
        )
    };
    let login = || {
        let login = Process::myself().ok()?.loginuid().ok()?;
        Some(login).filter(|uid| *uid != AUDIT_UID_UNSET)
    };
    noted("SUDO_UID")
        .or_else(|| noted("PKEXEC_UID"))
        .or_else(named)
        .or_else(login)
        .or(Some(own))
}
