//! `cargo xtask`: brings a machine into a working state, runs the tests and shows the demo.

mod bench;
mod demo;
mod setup;
mod test;

mod linker;
mod machine;
mod step;
mod tally;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Tasks of the apifence workspace"
)]
enum Task {
    /// Install what building and testing need: rust-src, bpf-linker, the packages that the tests use
    Setup {
        /// Say what is missing and how to install it, but install nothing
        #[arg(long)]
        check: bool,
        /// Install what the benchmark compares with, too
        #[arg(long)]
        bench: bool,
    },
    /// Build everything and run every test, as root or through sudo
    Test {
        /// Run only the tests whose name contains this
        filter: Option<String>,
    },
    /// Show the filter at work between two network namespaces that the demo makes and removes
    Demo,
    /// Measure what a packet and a change of the list cost, beside their peers
    Bench,
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Setup { check, bench } => setup::run(
            check,
            if bench {
                setup::Purpose::Bench
            } else {
                setup::Purpose::Work
            },
        ),
        Task::Test { filter } => test::run(filter.as_deref()),
        Task::Demo => demo::run(),
        Task::Bench => bench::run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
