//! `apifence`: runs the typed command. Only this file prints errors and exits.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use filter_user::{
    cli::Cli,
    command,
    ui::output::{flush, report_error},
};

fn main() -> ExitCode {
    if command::complete::answer() {
        return ExitCode::SUCCESS;
    }
    let done = match Cli::from_command_line() {
        Ok((cli, matches)) => command::run(cli, &matches),
        Err(said) => command::refuse(&said),
    };
    let code = done.unwrap_or_else(|error| report_error(&error));
    flush();
    ExitCode::from(code)
}
