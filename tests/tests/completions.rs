//! Completions, in real shells.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::{
    cli::{Apifence, binary},
    net::connect,
    netns::Namespace,
    site::{Family, NODE, Site, UNLISTED, at, ip},
    terminal::Terminal,
    wait::{PATIENCE, until},
};

/// Deletes the line in every shell.
const CLEAR: &str = "\u{1}\u{b}";

/// A shell that loads the completions: its words, and what it runs at first.
struct Shell {
    words: &'static [&'static str],
    start: &'static str,
    /// How often it wants the key until it lists what fits.
    tabs: &'static str,
}

const SHELLS: [Shell; 3] = [
    Shell {
        words: &["bash", "--norc", "--noprofile", "-i"],
        start: "PS1='rea''dy> '; source <(apifence completions bash)\n",
        tabs: "\t\t",
    },
    Shell {
        words: &["zsh", "-f", "-i"],
        start: "PS1='rea''dy> '; autoload -U compinit; compinit -u -D; source <(apifence completions zsh)\n",
        tabs: "\t",
    },
    Shell {
        words: &["fish", "--no-config", "-i"],
        start: "function fish_prompt; echo -n rea'dy> '; end; apifence completions fish | source\n",
        tabs: "\t",
    },
];

/// A directory with `apifence` in it, which is also the home of the shells.
fn home() -> Result<TempDir> {
    let home = TempDir::with_prefix("apf-home-")?;
    symlink(binary(), home.path().join("apifence"))?;
    Ok(home)
}

/// The variables that name the files of `filter`, and the program.
fn variables(filter: &Apifence, home: &TempDir) -> Vec<(&'static str, String)> {
    let path = std::env::var("PATH").unwrap_or_default();
    let home = home.path().display().to_string();
    vec![
        ("PATH", format!("{home}:{path}")),
        ("HOME", home),
        (
            "APIFENCE_CONFIG",
            filter.config_file().display().to_string(),
        ),
        ("APIFENCE_BPFFS", filter.bpffs().display().to_string()),
        (
            "APIFENCE_STATE_DIR",
            filter.state_dir().display().to_string(),
        ),
        (
            "APIFENCE_RANGES_FILE",
            filter.ranges_file().display().to_string(),
        ),
    ]
}

#[test]
fn shells_know_ranges_refused_sources_lists_and_numbers() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    filter.ok(&[
        "ranges",
        "add",
        "192.0.2.128/28",
        "--comment",
        "home office",
    ])?;
    filter.ok(&["ranges", "add", "2001:db8:77::/48", "--comment", "the lab"])?;
    // The kernel reports a sample.
    until("both sources are reported", || {
        for family in Family::BOTH {
            let [source, node] = [UNLISTED, NODE].map(|addresses| addresses[family as usize]);
            let refused = connect(&site.unlisted, ip(source), at(node, 6443), PATIENCE / 50);
            ensure!(refused.is_err());
        }
        let events = filter.ok(&["events", "--recent"])?;
        Ok(UNLISTED.iter().all(|source| events.contains(source)))
    })?;
    let home = home()?;
    let before = filter.list()?;
    for shell in &SHELLS {
        let mut terminal = Terminal::open(&site.node, (24, 100), |mut by| {
            by.args(shell.words).envs(variables(&filter, &home));
            by
        })?;
        terminal.press(shell.start)?;
        terminal.shows(&["ready> "])?;
        for (line, want) in [
            ("apifence ranges rem", &["apifence ranges remove"][..]),
            (
                "apifence ranges remove ",
                &["192.0.2.128/28", "home office", "the lab"],
            ),
            (
                "apifence ranges remove 2001:db8:7",
                &["remove 2001:db8:77::/48"],
            ),
            (
                "apifence ranges add ",
                &[UNLISTED[0], "refused", "at port 6443"],
            ),
            ("apifence ranges rollback ", &["1", "2", "ranges add"]),
            ("apifence events --interface ", &["lo"]),
            ("apifence explain W0", &["W08", "tunnel"]),
            ("apifence stat", &["status", "stats"]),
        ] {
            terminal.press(&format!("{line}{}", shell.tabs))?;
            let asked = terminal.shows(want);
            asked.map_err(|error| error.context(format!("{}: {line}", shell.words[0])))?;
            terminal.press(CLEAR)?;
            // Not before the shell has taken the keys: it reads them all at once.
            terminal.press("clear\n")?;
            terminal.until("empty screen", |screen| {
                screen.contents().trim_end() == "ready>"
            })?;
        }
    }
    ensure!(filter.list()? == before, "a completion changed the list");
    Ok(())
}

/// The answer to a shell that completes the last of `words`.
fn answer(by: Command, filter: &Apifence, home: &TempDir, words: &[&str]) -> Result<String> {
    let namespace = Namespace::new("desk")?;
    let mut command = by;
    command.arg(binary()).args(["--", "apifence"]).args(words);
    command
        .envs(variables(filter, home))
        .env("COMPLETE", "bash");
    let output = namespace.output(&mut command)?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(output.stderr.is_empty(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// As `sudo` completes: as the user who types.
#[test]
fn a_user_without_rights_gets_what_it_may_read() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    fs::set_permissions(filter.ranges_file(), Permissions::from_mode(0o600))?;
    let home = home()?;
    let mut user = Command::new("setpriv");
    user.args(["--reuid", "65534", "--clear-groups", "--inh-caps", "-all"]);
    let words = answer(user, &filter, &home, &["ranges", "add", ""])?;
    ensure!(words == "me\tthe address of this SSH session\n", "{words}");
    for faulty in ["not = toml =", "ranges_file = 3\n"] {
        filter.write_config(faulty)?;
        let words = answer(Command::new("env"), &filter, &home, &["ranges", "add", ""])?;
        ensure!(words.starts_with("me\t"), "{words}");
    }
    Ok(())
}

/// A list that takes long to read.
#[test]
fn a_long_list_does_not_make_the_shell_wait() -> Result<()> {
    let namespace = Namespace::new("desk")?;
    let filter = Apifence::new(&namespace)?;
    let all = (0..1_000_000)
        .map(|index| format!("10.{}.{}.{}\n", index >> 16, index >> 8 & 255, index & 255));
    filter.write_list(all.collect::<String>())?;
    let home = home()?;
    let words = answer(
        Command::new("env"),
        &filter,
        &home,
        &["ranges", "remove", ""],
    )?;
    ensure!(
        !words.contains("10."),
        "the shell waited for {} bytes",
        words.len()
    );
    Ok(())
}

/// The variable has a common name: it must not keep a command from what it does.
#[test]
fn a_variable_alone_completes_nothing() -> Result<()> {
    let namespace = Namespace::new("desk")?;
    let filter = Apifence::new(&namespace)?;
    for value in ["bash", "1", ""] {
        let ran = filter.run_with(&[("COMPLETE", value)], &["ranges", "set", "192.0.2.0/24"])?;
        ran.succeeded()?;
        ensure!(filter.list()?.contains("192.0.2.0/24"));
        fs::remove_file(filter.ranges_file())?;
    }
    Ok(())
}
