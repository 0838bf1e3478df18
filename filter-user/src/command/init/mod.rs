//! `apifence init`: looks at the node, asks, writes a config file and a list, and starts in monitor
//! mode.

mod proposal;
mod questions;

use std::{fmt, fs, io, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use self::proposal::Proposal;
use super::context::context_of;
use crate::{
    change,
    cli::{Cli, Command, InitArgs},
    cluster::Root,
    config::PolicyMode,
    context::Context,
    ranges::{Lists, RangesFile},
    store::{PolicyStore, SavedPolicy, StagedPolicy, WatchLock, read_ranges, write_text},
    survey::Survey,
    ui::{
        error::{InputErrors, UserError, errno},
        output::eprint,
    },
};

/// What `init` writes.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Files<'a> {
    /// The path of the config file.
    config_file: String,
    /// Its text.
    config: &'a str,
    /// The path of the ranges file.
    ranges_file: String,
    /// Its text; null if there is a list already, which stays.
    ranges: Option<&'a str>,
}

impl fmt::Display for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}\n\n{}", self.config_file, self.config)?;
        match self.ranges {
            Some(ranges) => writeln!(f, "# {}\n\n{ranges}", self.ranges_file),
            None => writeln!(f, "# {}: exists already, not changed", self.ranges_file),
        }
    }
}

/// Runs the command.
pub(super) fn run(context: &Context, args: &InitArgs) -> Result<u8> {
    if !args.print {
        refuse_existing(context)?;
    }
    let root = Root::new(args.root.from_root.clone());
    let survey = Survey::new(context, &root)?;
    for line in proposal::facts(&survey) {
        eprint(line);
    }
    let mut proposal = Proposal::new(&survey);
    let is_wanted = args.yes || args.print || questions::ask(&mut proposal, &survey)?;
    if !is_wanted {
        eprint("nothing written, nothing attached");
        return Ok(1);
    }
    let has_list = matches!(read_ranges(&context.global.ranges_file), Ok(Some(_)));
    let (config, ranges) = (proposal.config(&survey), proposal.ranges(&survey));
    let files = Files {
        config_file: context.file.path.clone(),
        config: &config,
        ranges_file: context.global.ranges_file.display().to_string(),
        ranges: (!has_list).then_some(&*ranges),
    };
    if args.print {
        context.global.output.write(&files)?;
        return Ok(0);
    }
    let mode = Mode::keep(context, &files)?;
    let written = Written::write(context, &files).inspect_err(|_| mode.take_back())?;
    eprint(format_args!("written: {}", written.names().join(", ")));
    if let Err(error) = attach(context) {
        // Another command may have attached a filter that goes by these files.
        if context.pins.interfaces().is_ok_and(|pins| !pins.is_empty()) {
            return Err(error.context(
                "start in monitor mode: the files from `init` stay, because a filter is attached",
            ));
        }
        written.take_back();
        mode.take_back();
        return Err(error.context("start in monitor mode: removed the files from `init` again"));
    }
    context.global.output.result(&files)?;
    next(&root);
    Ok(0)
}

/// Refuses to replace what an operator set up.
fn refuse_existing(context: &Context) -> Result<()> {
    WatchLock::refuse(&context.pins.watch(), "init")?;
    const PRINT: &str =
        "`apifence init --print` prints the proposed files; `apifence doctor` checks this node";
    if !context.pins.interfaces()?.is_empty() {
        return Err(UserError::input(
            "set up filter: a filter is already attached",
            PRINT,
        ));
    }
    let path = &context.file.path;
    let is_set = context.config.rows().iter().any(|row| row.source == "file");
    if is_set || !context.file.errors.is_empty() || !context.config.lists.is_empty() {
        return Err(UserError::input(
            format!("set up filter: `{path}` already has settings"),
            format!("rename it, or edit it by hand; {PRINT}"),
        ));
    }
    // A list that cannot be read is not replaced.
    read_ranges(&context.global.ranges_file).map(drop)
}

/// The mode, in the policy last in force, before there are files: a filter that is started by the
/// files of an `init` that was killed does not drop.
struct Mode {
    store: PolicyStore,
    before: Option<SavedPolicy>,
}

impl Mode {
    /// The settings are those of the config file that is to be written, which must be readable: its
    /// comments have words of others.
    fn keep(context: &Context, files: &Files<'_>) -> Result<Self> {
        let store = PolicyStore::new(&context.config.state_dir);
        let before = store.read().ok().flatten();
        let mode = Self { store, before };
        let mut config = context.config.clone();
        let errors = config.read_file(&files.config_file, files.config);
        if !errors.is_empty() {
            return Err(InputErrors::new(errors).into());
        }
        let mut settings = config.settings();
        settings.mode = PolicyMode::Monitor;
        mode.put(&SavedPolicy {
            settings,
            interfaces: Vec::new(),
            xdp_mode: *context.config.xdp_mode,
            lists: Lists::default(),
            cluster: Lists::default(),
        })?;
        Ok(mode)
    }

    /// Without it the next boot would enforce files that no operator has looked at.
    fn put(&self, policy: &SavedPolicy) -> Result<()> {
        self.store
            .stage(policy)
            .and_then(StagedPolicy::commit)
            .map(drop)
    }

    fn take_back(&self) {
        match &self.before {
            Some(before) => drop(self.put(before)),
            None => drop(self.store.forget()),
        }
    }
}

/// The files, and what was there before.
struct Written {
    files: Vec<(String, Option<Vec<u8>>)>,
}

impl Written {
    /// Writes the files: both, or none.
    fn write(context: &Context, files: &Files<'_>) -> Result<Self> {
        let mut written = Self { files: Vec::new() };
        if let Some(ranges) = files.ranges {
            // What is written must be a list: the comments have words of others.
            RangesFile::parse(ranges)
                .map_err(|_| anyhow::anyhow!("write list: reading it back failed"))?;
            let path = context.global.ranges_file.display().to_string();
            written.add(&path, ranges)?;
        }
        let added = written.add(&context.file.path, files.config);
        if let Err(error) = added {
            written.take_back();
            return Err(error);
        }
        Ok(written)
    }

    fn add(&mut self, path: &str, text: &str) -> Result<()> {
        // A link stays a link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let path = target.display().to_string();
        let before = match fs::read(&target) {
            Ok(before) => Some(before),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("read `{path}`")),
        };
        write_text(&target, text.as_bytes(), 0o644).map_err(|error| {
            UserError::failed(
                format!("write `{path}`: {}", errno(&error)),
                "nothing written, nothing attached",
            )
        })?;
        self.files.push((path, before));
        Ok(())
    }

    /// Puts back what was there before.
    fn take_back(&self) {
        for (path, before) in &self.files {
            let done = match before {
                Some(before) => write_text(Path::new(path), before, 0o644),
                None => fs::remove_file(path),
            };
            if let Err(error) = done {
                eprint(format_args!(
                    "warning: `{path}` stays as `init` wrote it: {}",
                    errno(&error)
                ));
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.files
            .iter()
            .map(|(path, _)| format!("`{path}`"))
            .collect()
    }
}

/// Attaches the filter in monitor mode, by the files as they are now. The mode is no line of the
/// config file: `apifence enforce` is to change it.
fn attach(context: &Context) -> Result<()> {
    let config = &context.config;
    let paths = [
        ("--config", Path::new(&context.file.path)),
        ("--ranges-file", &*context.global.ranges_file),
        ("--bpffs", &**config.bpffs),
        ("--state-dir", &**config.state_dir),
    ];
    let mut words = vec!["apifence".into()];
    for (flag, path) in paths {
        words.extend([flag.into(), path.as_os_str().to_owned()]);
    }
    words.extend(["attach", "--mode", "monitor"].map(Into::into));
    let (cli, matches) = Cli::from_words(words)?;
    let context = context_of(&cli, &matches)?;
    let Command::Attach { policy, change } = cli.command else {
        unreachable!("the words are those of `attach`");
    };
    change::attach::run(&context, &policy, &change)?;
    Ok(())
}

/// Says what to do next.
fn next(root: &Root) {
    let lines = [
        "nothing is dropped yet; next:",
        "  apifence top                            # watch clients and sources that would be dropped",
        "  apifence doctor                         # check this node",
        "  apifence suggest                        # after a day: ranges for clients that are not listed",
        "  apifence enforce --confirm-within 5m    # then `apifence confirm`",
    ];
    let service =
        "  systemctl enable --now apifence         # follow the files, and start after a reboot";
    let has_service = root.has_unit("apifence.service");
    for (place, line) in lines.into_iter().enumerate() {
        eprint(line);
        if place == 0 && has_service {
            eprint(service);
        }
    }
}
