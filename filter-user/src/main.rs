//! `apifence`: parses what was typed, runs it, and alone prints errors and exits.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use filter_user::{
    cli::Cli,
    command,
    explain::io_error,
    output::{ReaderGone, say, usage, written},
    problem::{EXIT_FAILED, EXIT_INPUT, Problem, Refusals, errno, hint},
};

fn main() -> ExitCode {
    let done = match Cli::typed() {
        Ok((cli, matches)) => command::run(cli, &matches),
        Err(said) => usage(&said),
    };
    let code = done.unwrap_or_else(|error| tell(&error));
    written();
    ExitCode::from(code)
}

/// Says what `error` is, and its hints; returns the exit code.
fn tell(error: &anyhow::Error) -> u8 {
    if error.is::<ReaderGone>() {
        return 0;
    }
    if let Some(refusals) = error.downcast_ref::<Refusals>() {
        for (cause, hint) in &refusals.list {
            say(format_args!("error: {cause}\nhint: {hint}"));
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
    let causes = causes.join(": ");
    let Some(problem) = error.downcast_ref::<Problem>() else {
        let shown = "`apifence status` shows what is in force";
        let hint = io_error(&**error).map_or(shown, |error| hint(error, shown));
        say(format_args!("error: {causes}\nhint: {hint}"));
        return EXIT_FAILED;
    };
    let word = if problem.refused { "refused" } else { "error" };
    say(format_args!("{word}: {causes}\nhint: {}", problem.hint));
    problem.details.iter().for_each(say);
    problem.exit
}
