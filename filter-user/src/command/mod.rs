//! One file per verb.

mod acknowledge;
mod attach;
mod attached;
mod change;
mod check;
mod config;
mod confirm;
mod detach;
mod edit;
mod editor;
mod event;
mod events;
mod explain;
mod first;
mod history;
mod leap;
mod list;
mod logged;
mod manual;
mod mode;
mod policy;
mod proposal;
mod ranges;
mod rates;
mod run;
mod settings;
mod settle;
mod stats;
mod status;
mod suggest;
mod told;
mod top;
mod transaction;
mod upgrade;
mod warned;
mod watch;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::ArgMatches;

use crate::{
    cli::{Cli, Command, RangesCommand},
    config::{Config, PolicyMode, Settings},
    datapath::Maps,
    kernel,
    output::{Output, say_logs},
    pins::Pins,
    problem::Problem,
    ranges::Grouping,
    state::WatchLock,
};

/// What every command works on.
#[derive(Clone)]
struct Context {
    global: Global,
    /// All settings, layered.
    config: Config,
    /// The config file, one of the layers.
    file: settings::ConfigFile,
    pins: Pins,
}

/// The settings that every command goes by.
#[derive(Clone)]
struct Global {
    ranges_file: PathBuf,
    output: Output,
    verbose: bool,
}

impl Context {
    /// The maps in use, if a filter is attached or was prepared.
    fn maps(&self) -> Result<Option<Maps>> {
        Maps::in_use(&self.pins)
    }

    /// The maps in use.
    fn attached_maps(&self) -> Result<Maps> {
        self.maps()?.ok_or_else(|| self.nothing_attached())
    }

    /// The settings to go by where `have` are in force; none where no filter is attached.
    fn settings(&self, have: Option<&Settings>) -> Settings {
        match have {
            Some(have) => self.config.over(have, self.file.exists),
            None => self.config.settings(),
        }
    }

    /// Whether nobody can tell where the list is: the config file may say so, and cannot be read.
    fn lost_list(&self) -> bool {
        self.config.doubts(&["ranges_file"])
    }

    /// The failure of a command that needs a filter where there is none.
    fn nothing_attached(&self) -> anyhow::Error {
        Problem::failed(
            format!(
                "open pins in `{}`: no filter is attached",
                self.pins.root().display()
            ),
            "`apifence attach` attaches one",
        )
    }
}

/// Runs what was typed, `matches` being the same with where each value came from; returns the exit code.
///
/// # Errors
/// If it failed; what was in force stays in force then.
pub fn run(cli: Cli, matches: &ArgMatches) -> Result<u8> {
    let (config, file) = settings::load(&cli, matches)?;
    let context = Context {
        global: Global {
            ranges_file: config.ranges_file.to_path_buf(),
            output: *config.output,
            verbose: *config.verbose,
        },
        pins: Pins::new(config.bpffs.to_path_buf()),
        config,
        file,
    };
    say_logs(context.global.verbose);
    // What `run` serves goes on while a long list is put in force.
    let mut builder = match cli.command {
        Command::Run { .. } => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start runtime")?;
    let done = runtime.block_on(dispatch(&context, cli.command, matches));
    // What still reads from the kernel for a client that is gone need not finish.
    runtime.shutdown_background();
    done
}

async fn dispatch(context: &Context, command: Command, matches: &ArgMatches) -> Result<u8> {
    if !matches!(
        command,
        Command::Config { .. }
            | Command::Completions { .. }
            | Command::Explain { .. }
            | Command::Man { .. }
            | Command::Ranges(RangesCommand::History)
    ) {
        context.pins.check()?;
        // These can do with another layout's.
        let takes_any = matches!(
            command,
            Command::Run { .. } | Command::Attach { .. } | Command::Detach { .. }
        );
        if !takes_any {
            context.pins.check_layout()?;
        }
    }
    if matches!(command, Command::Run { .. } | Command::Attach { .. }) {
        kernel::refuse_old()?;
    }
    match command {
        Command::Run { policy, .. } => {
            WatchLock::refuse(&context.pins.watch(), "watch filter")?;
            run::run(context, &policy, matches).await
        }
        Command::Attach { policy, change } => {
            WatchLock::refuse(&context.pins.watch(), "attach filter")?;
            attach::run(context, &policy, &change).await
        }
        Command::Detach { interface } => {
            WatchLock::refuse(&context.pins.watch(), "detach filter")?;
            detach::run(context, &interface).await
        }
        Command::Enforce { change } => mode::run(context, PolicyMode::Enforce, &change).await,
        Command::Monitor { change } => mode::run(context, PolicyMode::Monitor, &change).await,
        Command::Status { status } => status::run(context, &status).await,
        Command::Explain { code } => explain::run(context, code.as_deref()),
        Command::Check { sources } => check::run(context, &sources),
        Command::Stats { stats } if stats.watch => rates::run(context, stats.interval).await,
        Command::Stats { .. } => stats::run(context).await,
        Command::Top => top::run(context).await,
        Command::Events { events } => events::run(context, &events).await,
        Command::Suggest {
            group_v4: v4,
            group_v6: v6,
        } => suggest::run(context, Grouping { v4, v6 }),
        Command::Ranges(command) => ranges::run(context, command).await,
        Command::Confirm => confirm::run(context),
        Command::Config { policy, .. } => config::run(context, &policy),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { directory } => manual::man(directory.as_deref()),
    }
}
