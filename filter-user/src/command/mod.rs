//! One file per verb.

mod attach;
mod change;
mod check;
mod confirm;
mod detach;
mod history;
mod leap;
mod list;
mod policy;
mod ranges;
mod run;
mod settle;
mod stats;
mod status;

use anyhow::{Context as _, Result};

use crate::{
    cli::{Cli, Command, Global},
    datapath::Maps,
    pins::Pins,
    problem::Problem,
};

/// What every command works on.
struct Context {
    global: Global,
    pins: Pins,
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start runtime")?;
    let done = runtime.block_on(dispatch(&context, cli.command));
    // What still reads from the kernel for a client that is gone need not finish.
    runtime.shutdown_background();
    done
}

async fn dispatch(context: &Context, command: Command) -> Result<u8> {
    match command {
        Command::Run {
            policy,
            metrics_listen,
            detach_on_exit,
        } => run::run(context, &policy, metrics_listen, detach_on_exit).await,
        Command::Attach { policy, change } => attach::run(context, &policy, &change).await,
        Command::Detach { interface } => detach::run(context, &interface).await,
        Command::Status => status::run(context).await,
        Command::Check { addresses } => check::run(context, &addresses),
        Command::Stats => stats::run(context).await,
        Command::Ranges(command) => ranges::run(context, command).await,
        Command::Confirm => confirm::run(context),
    }
}
