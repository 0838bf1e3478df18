//! The program `apifence-kube`: reads what was typed, and ends with what was done.

use std::process::ExitCode;

use clap::Parser as _;

use filter_kube::{
    agent, api,
    cli::{Cli, Command},
    directory::Directory,
    health::Health,
};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => agent::run(&args),
        Command::Check { live, directory } => {
            let directory = Directory::at(&directory.lists_dir);
            match Health::problem(&directory, live) {
                None => Ok(()),
                Some(problem) => Err(anyhow::anyhow!(problem)),
            }
        }
        Command::Crds => api::definitions().map(|text| print!("{text}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
