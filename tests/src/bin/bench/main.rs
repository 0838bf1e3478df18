//! `cargo xtask bench`: what a packet, a flood and a change of the list cost, and what a client notices; each beside its peers, in
//! one interleaved run.

mod micro;
mod packet;
mod update;

mod flood;
mod service;

mod contender;
mod listener;
mod textbook;

mod chart;
mod cpus;
mod table;

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value};

/// Measure what a packet, a flood and a change of the list cost, beside their peers
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// What to measure; all of it if nothing is named
    parts: Vec<Part>,
    /// Where `bench.json` and `benchmarks.svg` go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Print the tables of flood and service as markdown
    #[arg(long)]
    markdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Part {
    /// Nanoseconds a packet, by BPF_PROG_TEST_RUN
    Packet,
    /// The same by the length of the list, with the table and with the trie alone
    Micro,
    /// Milliseconds a change of the list takes
    Update,
    /// Packets a second that a node takes
    Flood,
    /// What an authorized client notices of a flood
    Service,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let parts: BTreeSet<Part> = if arguments.parts.is_empty() {
        Part::value_variants().iter().copied().collect()
    } else {
        arguments.parts.into_iter().collect()
    };
    let out = arguments.out;
    fs::create_dir_all(&out).with_context(|| format!("make `{}`", out.display()))?;
    let machine = machine()?;
    println!("{machine}\n");
    let mut saved = Map::new();
    saved.insert("machine".to_owned(), Value::from(machine.as_str()));
    for part in parts {
        match part {
            Part::Packet => {
                packet::run()?;
                println!();
            }
            Part::Micro => {
                micro::run()?;
                println!();
            }
            Part::Update => {
                update::run()?;
                println!();
            }
            Part::Flood => {
                let table = flood::run()?;
                table.print(arguments.markdown);
                saved.insert("flood".to_owned(), table.json());
                chart::draw(&table, &out.join("benchmarks.svg"), &machine)?;
            }
            Part::Service => {
                let table = service::run()?;
                table.print(arguments.markdown);
                saved.insert("service".to_owned(), table.json());
            }
        }
    }
    let file = out.join("bench.json");
    fs::write(&file, serde_json::to_string_pretty(&saved)?)
        .with_context(|| format!("write `{}`", file.display()))?;
    eprintln!("saved in `{}`", out.display());
    Ok(())
}

/// The machine, and its kernel, in one line.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").context("read `/proc/cpuinfo`")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("a CPU without a name", |(_, name)| name);
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{model}, {cores} CPUs, Linux {}", kernel.trim()))
}

/// The middle one of sorted numbers.
fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
