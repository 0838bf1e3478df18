//! One file per verb.

mod attach;
mod change;
mod check;
mod confirm;
mod detach;
mod event;
mod events;
mod history;
mod leap;
mod list;
mod logged;
mod policy;
mod ranges;
mod run;
mod settle;
mod stats;
mod status;
mod suggest;

use anyhow::{Context as _, Result};

use crate::{
    cli::{Cli, Command, Global},
    datapath::Maps,
    pins::Pins,
    problem::Problem,
    ranges::Grouping,
};

/// What every command works on.
struct Context {
    global: Global,
    pins: Pins,
}

impl Context {
    /// The maps in use, if a filter is attached or was prepared.
    fn maps(&self) -> Result<Option<Maps>> {
        // Also refuses the pins of another layout version.
        let interfaces = self.pins.interfaces()?;
        let directory = self.pins.maps();
        if directory.exists() {
            return Maps::open(&directory).map(Some);
        }
        if interfaces.is_empty() {
            return Ok(None);
        }
        Err(Problem::failed(
            format!(
                "open pins in `{}`: the maps of the attached filter are gone",
                self.pins.root().display()
            ),
            "the filter goes by its last policy; `apifence attach` gives it new maps",
        ))
    }

    /// The maps in use.
    fn attached_maps(&self) -> Result<Maps> {
        self.maps()?.ok_or_else(|| self.nothing_attached())
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

/// Runs what was typed; returns the exit code.
///
/// # Errors
/// If it failed; what was in force stays in force then.
pub fn run(cli: Cli) -> Result<u8> {
    let context = Context {
        pins: Pins::new(cli.global.bpffs.clone()),
        global: cli.global,
    };
    let level = if context.global.verbose {
        log::LevelFilter::Debug
    } else {
        log::LevelFilter::Warn
    };
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Error)
        .filter_module("apifence", level)
        .format(|out, record| {
            use std::io::Write as _;
            writeln!(
                out,
                "{}: {}",
                record.level().as_str().to_lowercase(),
                record.args()
            )
        })
        .init();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start runtime")?
        .block_on(dispatch(&context, cli.command))
}

async fn dispatch(context: &Context, command: Command) -> Result<u8> {
    match command {
        Command::Run {
            policy,
            detach_on_exit,
        } => run::run(context, &policy, detach_on_exit).await,
        Command::Attach { policy, change } => attach::run(context, &policy, &change).await,
        Command::Detach { interface } => detach::run(context, &interface).await,
        Command::Status => status::run(context).await,
        Command::Check { addresses } => check::run(context, &addresses),
        Command::Stats => stats::run(context).await,
        Command::Events { events } => events::run(context, &events).await,
        Command::Suggest {
            group_v4: v4,
            group_v6: v6,
        } => suggest::run(context, Grouping { v4, v6 }),
        Command::Ranges(command) => ranges::run(context, command).await,
        Command::Confirm => confirm::run(context),
    }
}
