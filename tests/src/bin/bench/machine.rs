//! Place and time of the measurement.

use std::{fmt, fs, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::cli::binary;

/// The machine, its kernel, the filter, and the day.
pub(crate) struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
    filter: String,
    date: String,
}

impl Machine {
    /// The present machine and day.
    pub(crate) fn this() -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo").context("read `/proc/cpuinfo`")?;
        let cpu = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("a CPU without a name", |(_, name)| name);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Self {
            cpu: cpu.to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            kernel: kernel.trim().to_owned(),
            filter: stdout_of(Command::new(binary()).arg("--version"))?,
            date: stdout_of(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?,
        })
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu, "cpus": self.cpus, "kernel": self.kernel, "filter": self.filter,
            "date": self.date,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu,
            cpus,
            kernel,
            filter,
            date,
        } = self;
        write!(f, "{filter}, {cpu}, {cpus} CPUs, Linux {kernel}, {date}")
    }
}

fn stdout_of(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run `{}`", command.get_program().to_string_lossy()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
