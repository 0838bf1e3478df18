//! `apifence`: parses what was typed, runs it, and alone prints errors and exits.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use filter_user::{
    cli::Cli,
    command,
    problem::{EXIT_FAILED, EXIT_INPUT, Problem, Refusals, errno},
};

fn main() -> ExitCode {
    let (cli, matches) = Cli::typed();
    match command::run(cli, &matches) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if is_closed_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            ExitCode::from(print(&error))
        }
    }
}

/// Prints `error` and its hints to stderr; returns the exit code.
fn print(error: &anyhow::Error) -> u8 {
    if let Some(refusals) = error.downcast_ref::<Refusals>() {
        for (cause, hint) in &refusals.list {
            eprintln!("error: {cause}\nhint: {hint}");
        }
        return EXIT_INPUT;
    }
    let causes: Vec<String> = error
        .chain()
        .map(|cause| {
            cause
                .downcast_ref()
                .map_or_else(|| cause.to_string(), errno)
        })
        .collect();
    eprintln!("error: {}", causes.join(": "));
    match error.downcast_ref::<Problem>() {
        Some(problem) => {
            eprintln!("hint: {}", problem.hint);
            problem.exit
        }
        None => {
            eprintln!("hint: `apifence status` shows what is in force");
            EXIT_FAILED
        }
    }
}

/// Whether the reader of our output went away, as `head` does: nothing to complain about.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
