//! `cargo xtask bench` measures the load of the program, packets, changes of the list, floods, and
//! their effect on a client. Each contender is measured next to its peers in one interleaved run.

mod load;
mod micro;
mod update;

mod flood;
mod service;

mod contender;
mod listener;
mod textbook;

mod carousel;
mod sources;

mod chart;
mod cpus;
mod machine;
mod memory;
mod numbers;
mod progress;
mod table;

use std::{collections::BTreeSet, fs, panic::resume_unwind, path::PathBuf, thread, time::Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};

use crate::{machine::Machine, table::Table};

/// Measure the cost of packets, changes of the list and floods, compared with other tools
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// What to measure; all of it if nothing is named
    parts: Vec<Part>,
    /// Where `bench.json` and `benchmarks.svg` go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Print the tables as markdown
    #[arg(long)]
    markdown: bool,
    /// Few rounds and short lists, in seconds: shows that all of it works, and measures nothing
    #[arg(long)]
    short: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Part {
    /// Instructions that the verifier goes through, and milliseconds to load the program
    Load,
    /// Nanoseconds a packet by the length of the list, by BPF_PROG_TEST_RUN
    Micro,
    /// Milliseconds a change of the list takes, and the memory of the list
    Update,
    /// Packets a second that a node takes
    Flood,
    /// What an authorized client notices of a flood
    Service,
}

impl Part {
    fn measure(self, short: bool) -> Result<Vec<Table>> {
        match self {
            Self::Load => load::run(short),
            Self::Micro => micro::run(short),
            Self::Update => update::run(short),
            Self::Flood => Ok(vec![flood::run(short)?]),
            Self::Service => Ok(vec![service::run(short)?]),
        }
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
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
    let machine = Machine::this()?;
    println!("{machine}\n");
    cpus::prefer_this_process()?;
    let mut saved = Map::new();
    for part in parts {
        let started = Instant::now();
        // In a thread of its own: a part pins its thread to a CPU, and the next part must not
        // inherit that.
        let tables = thread::scope(|scope| {
            let measuring = scope.spawn(|| part.measure(arguments.short));
            measuring
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })?;
        let seconds = started.elapsed().as_secs();
        for table in &tables {
            table.print(arguments.markdown);
        }
        eprintln!("{} took {seconds} s\n", part.name());
        if part == Part::Flood {
            chart::draw(&tables[0], &out.join("benchmarks.svg"), &machine)?;
        }
        let tables: Vec<Value> = tables.iter().map(Table::json).collect();
        saved.insert(part.name(), json!({ "seconds": seconds, "tables": tables }));
        // After each part, so that its results are kept if the next one fails.
        let report = json!({ "machine": machine.json(), "short": arguments.short, "parts": saved });
        let file = out.join("bench.json");
        fs::write(&file, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("write `{}`", file.display()))?;
    }
    eprintln!("saved in `{}`", out.display());
    Ok(())
}
