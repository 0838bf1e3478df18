//! The program `apifence-kube`: reads what was typed, and ends with what was done.

use std::process::ExitCode;

use clap::Parser as _;

use filter_kube::{
    agent, api,
    cli::{Cli, Command, Output},
    directory::{self, Directory},
    health::Health,
    log,
};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => {
            if args.output == Output::Json {
                log::write_json();
            }
            agent::run(&args)
        }
        Command::Check { live, directory } => {
            let directory = Directory::at(&directory.lists_dir);
            match Health::problem(&directory, live) {
                None => Ok(()),
                Some(problem) => Err(anyhow::anyhow!(problem)),
            }
        }
        Command::Prepare(directory) => directory::prepare(&directory.lists_dir),
        Command::Crds => api::definitions().map(|text| print!("{text}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::message(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
