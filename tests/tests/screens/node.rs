//! A node with the paths of an installation, so that texts have the same width in every run.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use tests::{
    cli::{Background, Ran, binary},
    mounts,
    net::silent,
    netns::Namespace,
    scrape::ready,
    site::{INTERFACE, NODE, Site, UNLISTED, at, ip},
    terminal::Terminal,
};

/// A port that is protected.
pub(crate) const PORT: u16 = 6443;
/// Times of the last ten seconds have another width.
const SETTLED: Duration = Duration::from_secs(11);
/// The lines of the terminals.
const LINES: u16 = 100;
/// The last line of what is shown.
const END: &str = "-- end --";

/// A guarded node with a service.
pub(crate) struct Node {
    pub(crate) site: Site,
    _service: Background,
    since: Instant,
}

impl Node {
    /// A node without a filter.
    pub(crate) fn bare() -> Result<Site> {
        mounts::enter_private()?;
        mounts::own_etc()?;
        for directory in ["/var/lib", "/run"] {
            mounts::own(directory)?;
        }
        // In this mount namespace alone: what an earlier installation left does not belong here.
        for left in ["/etc/apifence", "/var/lib/apifence"] {
            if Path::new(left).exists() {
                fs::remove_dir_all(left)?;
            }
        }
        fs::create_dir_all("/etc/apifence/ranges.d")?;
        Site::new()
    }

    /// A node with a list, a filter, a service, and packets that were refused.
    pub(crate) fn start() -> Result<Self> {
        let site = Self::bare()?;
        let soon = Timestamp::now() + SignedDuration::from_hours(29 * 24 + 12);
        let past = Timestamp::now() - SignedDuration::from_mins(3 * 60 + 30);
        fs::write(
            "/etc/apifence/ranges",
            format!(
                "198.51.100.0/24 # office Berlin\n2001:db8:aa::/48 # office Berlin\n\
                 203.0.113.64/28 expires={soon:.0} # contractor\n\
                 203.0.113.7 expires={past:.0} # home office of Kim\n\
                 2001:db8:1111:2222:3333:4444:5555:6666 # a host with a long address, and with a comment that is longer than a terminal is wide\n"
            ),
        )?;
        fs::write("/etc/apifence/ranges.d/ci", "192.0.2.64/27 # runners\n")?;
        fs::write(
            "/etc/apifence/apifence.toml",
            format!("interfaces = [\"{INTERFACE}\"]\ncluster_cidrs = [\"192.0.2.16/28\"]\n"),
        )?;
        let mut run = Command::new(binary());
        clean(&mut run).arg("run").stdin(Stdio::null());
        run.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut service = Background::from_child(site.node.spawn(&mut run)?)?;
        ready(&site.node, &mut service)?;
        let node = Self {
            site,
            _service: service,
            since: Instant::now(),
        };
        node.ok(&["ranges", "add", "203.0.113.80", "--comment", "build server"])?;
        silent(&node.site.unlisted, ip(UNLISTED[0]), at(NODE[0], PORT))?;
        Ok(node)
    }

    /// Waits until times have two digits.
    pub(crate) fn settle(&self) {
        thread::sleep(SETTLED.saturating_sub(self.since.elapsed()));
    }

    /// The result of a command whose output is read by a program.
    pub(crate) fn run(&self, words: &[&str], environment: &[(&str, &str)]) -> Result<Ran> {
        run(&self.site.node, words, environment)
    }

    /// The same, which must end well.
    pub(crate) fn ok(&self, words: &[&str]) -> Result<String> {
        let ran = self.run(words, &[])?;
        ensure!(ran.code == Some(0), "{words:?}: {ran:?}");
        Ok(ran.stdout)
    }

    /// What a command shows in a terminal of this many columns.
    pub(crate) fn shown(&self, words: &[&str], columns: u16) -> Result<String> {
        shown(&self.site.node, words, columns)
    }
}

/// The result of a command whose output is read by a program.
pub(crate) fn run(inside: &Namespace, words: &[&str], environment: &[(&str, &str)]) -> Result<Ran> {
    let mut command = Command::new(binary());
    clean(&mut command)
        .args(words)
        .envs(environment.iter().copied());
    Ran::new(words, &inside.output(&mut command)?)
}

/// What a command shows in a terminal of this many columns; no line may be wider.
pub(crate) fn shown(inside: &Namespace, words: &[&str], columns: u16) -> Result<String> {
    let terminal = open(inside, words, columns, &[])?;
    let wide: Vec<u16> = terminal.look(|screen| {
        let rows = 0..LINES;
        rows.filter(|row| screen.row_wrapped(*row)).collect()
    });
    let text = terminal.contents();
    ensure!(
        wide.is_empty(),
        "{words:?}: wider than {columns} columns in lines {wide:?}:\n{text}"
    );
    Ok(text.replace(END, "").trim_end().to_owned())
}

/// The terminal in which a command has ended.
pub(crate) fn open(
    inside: &Namespace,
    words: &[&str],
    columns: u16,
    environment: &[(&str, &str)],
) -> Result<Terminal> {
    let terminal = Terminal::open(inside, (LINES, columns), |mut by| {
        let script = format!("\"$0\" \"$@\"; echo; echo '{END}'");
        clean(&mut by).envs(environment.iter().copied());
        by.args(["sh", "-c", &script]).arg(binary()).args(words);
        by
    })?;
    terminal.shows(&[END])?;
    Ok(terminal)
}

/// Takes variables out that the program reads, and names the user.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_color = ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"].contains(&&*text);
        if is_color || text.starts_with("APIFENCE_") {
            command.env_remove(&name);
        }
    }
    command.env("SUDO_UID", "0")
}
