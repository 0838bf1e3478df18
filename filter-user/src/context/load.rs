//! The settings that a command uses, and its behaviour if the config file or environment is broken.

use std::{collections::BTreeSet, env, path::Path};

use anyhow::Result;
use clap::{ArgMatches, CommandFactory as _, parser::ValueSource};
use procfs::process::Process;

use crate::{
    cli::{Cli, Command, RangesCommand},
    config::{Config, Environment, Settings, join},
    store::{ConfigText, FileStamp, read_config, refuse_other_writers},
    ui::{error::InputErrors, output::eprint},
};

/// The config file as it was read.
#[derive(Clone)]
pub(crate) struct ConfigFile {
    /// Its path, as it was given.
    pub(crate) path: String,
    /// Its stamp from before it was read.
    pub(crate) seen: FileStamp,
    pub(crate) exists: bool,
    /// Its settings, over the defaults.
    pub(crate) config: Config,
    /// Its errors, each with its hint. For `run` they include those of the environment.
    pub(crate) errors: Vec<(String, String)>,
}

impl ConfigFile {
    /// Reads the file that the command line or the environment names into `config`.
    fn read(
        cli: &Cli,
        matches: &ArgMatches,
        environment: &Environment,
        base: &Path,
        config: &mut Config,
    ) -> Result<Self> {
        let typed = matches.value_source("config") == Some(ValueSource::CommandLine);
        let variable = environment.get("APIFENCE_CONFIG").filter(|_| !typed);
        let path = &base.join(variable.map_or(&*cli.global.config, Path::new));
        // `init` writes it, and `doctor` says that it is missing.
        let is_to_exist = !matches!(cli.command, Command::Init { .. } | Command::Doctor { .. });
        let named = is_to_exist && (typed || variable.is_some());
        let seen = FileStamp::of(path);
        let text = match read_config(path, named) {
            // `run` guards the port even if the config file is broken.
            Err(error) if matches!(cli.command, Command::Run { .. }) => ConfigText::Unreadable(
                format!("{error:#}")
                    .rsplit_once(": ")
                    .map_or_else(|| format!("{error:#}"), |(_, cause)| cause.to_owned()),
            ),
            text => text?,
        };
        let path = path.display().to_string();
        let exists = !matches!(text, ConfigText::Absent);
        let errors = match text {
            ConfigText::Absent => Vec::new(),
            ConfigText::Text(text) => config.read_file(&path, &text),
            ConfigText::Unreadable(why) => {
                config.mark_all_unreadable();
                vec![(
                    format!("read config file `{path}`: {why}"),
                    "fix or remove the file; the policy in force stays in force".to_owned(),
                )]
            }
        };
        Ok(Self {
            path,
            seen,
            exists,
            config: config.clone(),
            errors,
        })
    }

    /// How the file differs from the settings in force, `have`, and from the guarded interfaces.
    /// Settings that the file does not name cannot differ. A broken file gives several sentences.
    pub(crate) fn drift(&self, have: Option<&Settings>, guarded: &[&str]) -> Vec<String> {
        if !self.errors.is_empty() {
            let mut lines = InputErrors::new(self.errors.clone()).causes();
            lines.push(
                "the config file is invalid: the policy stays in force until you fix the file; `apifence config` shows its errors"
                    .to_owned(),
            );
            return lines;
        }
        let Some(have) = have else {
            return Vec::new();
        };
        let changes = self.config.over(have, self.exists).changes_from(have);
        let mut changes: Vec<String> = changes
            .iter()
            .map(|change| change.text().to_owned())
            .collect();
        let want: BTreeSet<&str> = self.config.interfaces.iter().map(String::as_str).collect();
        // `attach` keeps guarded interfaces that the file does not name, so they do not differ.
        if want.iter().any(|name| !guarded.contains(name)) {
            changes.push(format!("interfaces {} (was {})", join(want), join(guarded)));
        }
        if changes.is_empty() {
            return changes;
        }
        vec![format!(
            "`{}` would change {}; `apifence attach` without flags applies the file",
            self.path,
            changes.join("; ")
        )]
    }
}

/// The settings that `command` needs; `None` for all of them.
///
/// A command that puts settings in force needs a valid file. The others must work with a broken
/// file: they show the active policy, change the list, and let the operator back in. They need the
/// path of the pins; those that change the list also need the path of the ranges file. Those that
/// only show, and `detach`, work without the list.
const fn required_settings(command: &Command) -> Option<&'static [&'static str]> {
    match command {
        Command::Config { example: true, .. } => Some(&[]),
        Command::Attach { .. } | Command::Config { .. } => None,
        // `run` guards the port even if all settings are broken.
        Command::Run { .. } => Some(&[]),
        Command::Status { .. }
        | Command::Check { .. }
        | Command::Stats { .. }
        | Command::Top { .. }
        | Command::Init { .. }
        | Command::Events { .. }
        | Command::Suggest { .. }
        | Command::Detach { .. }
        | Command::Ls { .. }
        | Command::Ranges {
            command: RangesCommand::List(_),
            ..
        } => Some(&["bpffs"]),
        Command::Ranges {
            command: RangesCommand::History | RangesCommand::Lists,
            ..
        } => Some(&["ranges_file"]),
        Command::Completions { .. }
        | Command::Doctor { .. }
        | Command::Explain { .. }
        | Command::Man { .. }
        | Command::Version => Some(&[]),
        Command::Confirm
        | Command::Enforce { .. }
        | Command::Monitor { .. }
        | Command::Ranges { .. } => Some(&["bpffs", "ranges_file"]),
    }
}

/// The settings of a command line, and the config file that is one of their sources. `heard` is
/// told the settings of `run` before any error.
///
/// # Errors
/// All errors together, if a setting that the command needs is unknown. Nothing was changed.
pub(crate) fn load(
    cli: &Cli,
    matches: &ArgMatches,
    heard: impl FnOnce(&Config),
) -> Result<(Config, ConfigFile)> {
    load_in(
        cli,
        matches,
        Environment::new(env::vars_os()),
        Path::new(""),
        heard,
    )
}

/// The settings of `process`, an `apifence run`: the same that [`load`] gives there.
///
/// # Errors
/// If its command line or its environment cannot be read.
pub(crate) fn load_of_process(process: &Process) -> Result<(Config, ConfigFile)> {
    let (cli, matches) = Cli::from_words(process.cmdline()?)?;
    load_in(
        &cli,
        &matches,
        Environment::new(process.environ()?),
        &process.cwd()?,
        |_| (),
    )
}

/// The settings in an environment, with relative paths from `base`; `heard` as for [`load`].
fn load_in(
    cli: &Cli,
    matches: &ArgMatches,
    environment: Environment,
    base: &Path,
    heard: impl FnOnce(&Config),
) -> Result<(Config, ConfigFile)> {
    let mut matches = matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let mut config = Config::default();
    let mut file = ConfigFile::read(cli, matches, &environment, base, &mut config)?;
    let typed = config.read_typed(&Cli::command(), matches, &environment);
    if matches!(cli.command, Command::Run { .. }) {
        heard(&config);
    }

    // The first errors are shown, so those of the command line come first.
    let mut refusals = typed.flags;
    refusals.extend(match required_settings(&cli.command) {
        None => [&file.errors[..], &typed.environment].concat(),
        Some(keys) => unreadable_settings(&config, &file, keys),
    });
    if !refusals.is_empty() {
        return Err(InputErrors::new(refusals).into());
    }
    if !matches!(cli.command, Command::Run { .. }) {
        warn(&file, &typed.environment, &cli.command);
        return Ok((config, file));
    }
    if !(file.errors.is_empty() && typed.environment.is_empty()) {
        config = config.without_policy();
        // A broken variable counts like a broken file: the intended values of others are unknown.
        let environment = if typed.environment.is_empty() {
            environment
        } else {
            Environment::default()
        };
        config.read_typed(&Cli::command(), matches, &environment);
    }
    // `run` reports them itself, once.
    file.errors.extend(typed.environment);
    if let Err(error) = refuse_other_writers(Path::new(&file.path)) {
        file.errors.push((
            format!("{error:#}"),
            "run `chown root` and `chmod go-w` on it".to_owned(),
        ));
    }
    Ok((config, file))
}

/// Warns of errors in the environment and the file that `command` does not depend on.
fn warn(file: &ConfigFile, environment: &[(String, String)], command: &Command) {
    for (cause, hint) in environment {
        eprint(format_args!("warning: {cause}: ignored ({hint})"));
    }
    // `status` shows it among its data.
    if !file.errors.is_empty() && !matches!(command, Command::Status { .. }) {
        for cause in InputErrors::new(file.errors.clone()).causes() {
            eprint(format_args!("warning: {cause}"));
        }
        eprint(
            "warning: some settings are invalid; this command uses the others; `apifence config` shows the errors",
        );
    }
}

/// The errors to report if one of `keys` is needed, and the unreadable part of the file may set it.
fn unreadable_settings(config: &Config, file: &ConfigFile, keys: &[&str]) -> Vec<(String, String)> {
    let unreadable: Vec<&str> = keys
        .iter()
        .copied()
        .filter(|key| config.has_unreadable(&[key]))
        .collect();
    if unreadable.is_empty() {
        return Vec::new();
    }
    let flags: Vec<String> = unreadable
        .iter()
        .map(|key| format!("`--{}`", key.replace('_', "-")))
        .collect();
    let needed = (
        format!(
            "{}: it may set `{}`, which this command needs",
            file.path,
            unreadable.join("`, `")
        ),
        format!("fix the file, or use {}", flags.join(" and ")),
    );
    let mut refusals = file.errors.clone();
    // Put it among those that are shown.
    refusals.insert(refusals.len().min(InputErrors::MAX_SHOWN - 1), needed);
    refusals
}
