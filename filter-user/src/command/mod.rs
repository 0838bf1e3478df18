//! The commands: one file per verb.

mod acknowledge;

mod check;
pub mod complete;
mod config;

mod confirm;
mod context;
mod doctor;

mod edit;
mod editor;

mod events;
mod explain;
mod feed;

mod history;
mod init;

mod list;
mod lists;

mod manual;
mod mode;

mod ranges;
mod rates;
#[cfg(test)]
mod schemas;
mod stats;

mod status;
mod suggest;
mod version;

use std::io;

use anyhow::{Context as _, Result};
use clap::ArgMatches;
use nix::{errno::Errno, unistd::geteuid};

use crate::{
    change,
    cli::{Cli, Command, RangesCommand},
    config::PolicyMode,
    context::Context,
    daemon,
    kernel::{capabilities::give_up_unneeded, pins::NEEDS_ROOT, version::refuse_old},
    policy::author::Author,
    ranges::Grouping,
    store::WatchLock,
    top,
    ui::{
        crates::init_logger,
        error::UserError,
        explain::{NEEDS_RIGHTS, io_error},
        output::{Output, log_as_json, usage},
        style, when,
    },
};

/// Runs the command; `matches` also has the source of each value. Returns the exit code.
///
/// # Errors
/// If the command failed. The policy in force stays in force then.
pub fn run(cli: Cli, matches: &ArgMatches) -> Result<u8> {
    style::choose(cli.global.look.color);
    if cli.global.look.utc {
        when::show_utc();
    }
    let context = context::context_of(&cli, matches)?;
    init_logger(context.global.verbose);
    // The worker thread of `run` serves metrics while a long list is put in force.
    let mut builder = match cli.command {
        Command::Run { .. } => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            // After a failure it has more than it needs; the main thread reports its own failure.
            builder.on_thread_start(|| drop(give_up_unneeded()));
            builder
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start runtime")?;
    let done = runtime.block_on(dispatch(&context, cli.command, matches));
    // A read of the kernel for a client that is gone need not finish.
    runtime.shutdown_background();
    done.map_err(for_user)
}

/// The error as a user needs it who is not root: a right that the kernel refuses is root's.
fn for_user(error: anyhow::Error) -> anyhow::Error {
    const REFUSALS: [Errno; 2] = [Errno::EPERM, Errno::EACCES];
    let is_refused = match error.downcast_ref::<UserError>() {
        Some(problem) => {
            let cause = |errno: &Errno| problem.cause.ends_with(&errno.desc().to_lowercase());
            [NEEDS_RIGHTS, NEEDS_ROOT].contains(&&*problem.hint) && REFUSALS.iter().any(cause)
        }
        None => {
            let cause = io_error(&*error).and_then(io::Error::raw_os_error);
            cause.is_some_and(|cause| REFUSALS.contains(&Errno::from_raw(cause)))
        }
    };
    if !is_refused || geteuid().is_root() {
        return error;
    }
    let author = Author::of_this_process();
    UserError::failed(
        format!("`apifence {}` needs root", author.verb()),
        format!("`sudo apifence {}`", author.command),
    )
}

/// Writes the text of `clap` in place of a command. Returns the exit code.
///
/// # Errors
/// If stdout cannot be written.
pub fn refuse(said: &clap::Error) -> Result<u8> {
    if context::is_run_with_json() {
        log_as_json();
    }
    usage(said)
}

/// Checks what `command` needs of the pins and the kernel.
fn check_ground(context: &Context, command: &Command) -> Result<()> {
    let needs_pins = !matches!(
        command,
        Command::Config { .. }
            | Command::Completions { .. }
            | Command::Doctor { .. }
            | Command::Explain { .. }
            | Command::Man { .. }
            | Command::Version
            | Command::Ranges {
                command: RangesCommand::History | RangesCommand::Lists,
                ..
            }
    );
    if needs_pins && !feed::is_feed(command) {
        context.pins.check()?;
        // These work with pins of another layout.
        let takes_any = matches!(
            command,
            Command::Run { .. } | Command::Attach { .. } | Command::Detach { .. }
        );
        if !takes_any {
            context.pins.check_layout()?;
        }
    }
    if matches!(
        command,
        Command::Run { .. } | Command::Attach { .. } | Command::Init { .. }
    ) {
        refuse_old()?;
    }
    Ok(())
}

/// Refuses a format that `command` does not have.
fn check_format(output: Output, command: &Command) -> Result<()> {
    let (word, has_it) = match (output, command) {
        (Output::Text | Output::Json | Output::Yaml, _) => return Ok(()),
        (Output::Wide, Command::Ranges { command, .. }) => {
            ("wide", matches!(command, RangesCommand::List { .. }))
        }
        (Output::Wide, _) => ("wide", false),
        (Output::Csv, Command::Stats { .. }) => ("csv", true),
        (Output::Csv, Command::Ranges { command, .. }) => {
            let is_listed = matches!(
                command,
                RangesCommand::List { .. } | RangesCommand::Lists | RangesCommand::History
            );
            ("csv", is_listed)
        }
        (Output::Csv, _) => ("csv", false),
    };
    if has_it {
        return Ok(());
    }
    let commands = match output {
        Output::Wide => "`apifence ranges list` has it",
        _ => "`apifence stats` and `apifence ranges list`, `lists` and `history` have it",
    };
    Err(UserError::input(
        format!("write output: this command has no format `{word}`"),
        format!("{commands}; every command has `text`, `json` and `yaml`"),
    ))
}

async fn dispatch(context: &Context, command: Command, matches: &ArgMatches) -> Result<u8> {
    check_format(context.global.output, &command)?;
    check_ground(context, &command)?;
    match command {
        Command::Run { policy, .. } => {
            WatchLock::refuse(&context.pins.watch(), "run")?;
            daemon::run::run(context, &policy, matches).await
        }
        Command::Init { init } => init::run(context, &init),
        Command::Doctor { doctor } => doctor::run(context, &doctor),
        Command::Attach { policy, change } => {
            WatchLock::refuse(&context.pins.watch(), "attach")?;
            change::attach::run(context, &policy, &change)
        }
        Command::Detach { interface } => {
            WatchLock::refuse(&context.pins.watch(), "detach")?;
            change::detach::run(context, &interface)
        }
        Command::Enforce { change } => mode::run(context, PolicyMode::Enforce, &change),
        Command::Monitor { change } => mode::run(context, PolicyMode::Monitor, &change),
        Command::Status { status } => status::run(context, &status),
        Command::Explain { code } => explain::run(context, code.as_deref()),
        Command::Check { sources, port } => check::run(context, &sources, port),
        Command::Stats { stats } if stats.watch => rates::run(context, stats.interval).await,
        Command::Stats { .. } => stats::run(context),
        Command::Top { top: args } => top::run(context, &args).await,
        Command::Events { events } => events::run(context, &events).await,
        Command::Suggest {
            group_v4: v4,
            group_v6: v6,
        } => suggest::run(context, Grouping { v4, v6 }),
        Command::Ranges { list, command } => ranges::run(context, list.as_ref(), command),
        Command::Ls { list, shown } => {
            ranges::run(context, list.as_ref(), RangesCommand::List(shown))
        }
        Command::Confirm => confirm::run(context),
        Command::Config { example: true, .. } => config::example(),
        Command::Config { policy, .. } => config::run(context, &policy),
        Command::Completions { shell } => complete::script(shell),
        Command::Man { directory } => manual::man(directory.as_deref()),
        Command::Version => version::run(context),
    }
}
