//! `cargo xtask`: brings a machine into a working state, runs the tests and shows the demo.

mod bench;
mod cluster;
mod demo;
mod dist;
mod install;
mod manifests;
mod package_test;
mod record;
mod setup;
mod test;
mod vm;

mod debian;
mod linker;
mod machine;
mod step;
mod tally;
mod target;
mod toolchain;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Tasks of the apifence workspace"
)]
enum Task {
    /// Install what building and testing need: rust-src, bpf-linker, the packages that the tests
    /// use
    Setup {
        /// Say what is missing and how to install it, but install nothing
        #[arg(long)]
        check: bool,
        /// Install what the benchmark compares with, too
        #[arg(long)]
        bench: bool,
        /// Install what releases are made and tried with, too
        #[arg(long, conflicts_with = "bench")]
        dist: bool,
    },
    /// Build everything and run every test, as root or through sudo
    Test {
        /// Run only the tests whose name contains this
        filter: Option<String>,
        /// Run the tests with real API servers instead; the first time it builds one from Debian's
        /// sources
        #[arg(long)]
        cluster: bool,
    },
    /// Show the filter at work between two network namespaces that the demo makes and removes
    Demo,
    /// Record the pictures in docs/images: the demo, and the screens of a guarded node
    Record,
    /// Build the release and install it: the binary, and a config file that changes nothing
    Install {
        /// The root of the file system to install into
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// Make a release in target/dist: static programs, tarballs, packages, SBOM and digests
    Dist {
        /// Only for these machines
        #[arg(long, value_name = "MACHINE")]
        target: Vec<target::Target>,
        /// Make nothing, but build this machine's program twice and compare
        #[arg(long, conflicts_with = "target")]
        check_reproducible: bool,
    },
    /// Make this machine's packages and try them: the .deb in a Debian root with systemd, through
    /// upgrade, downgrade, removal and purge, the .rpm with rpm
    PackageTest,
    /// Measure what a packet, a flood and a change of the list cost, beside their peers
    Bench {
        /// What to measure (micro, update, flood, service), and options; all of it if nothing is
        /// named
        #[arg(
            value_name = "PART",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        arguments: Vec<String>,
    },
    /// Run the static binary on Debian's kernels in virtual machines
    VmTest {
        /// Only two kernels, without the devices
        #[arg(long)]
        short: bool,
        /// Only this kernel, like 6.12 or 6.1-arm64
        #[arg(long = "kernel", value_name = "NAME")]
        kernels: Vec<String>,
        /// Write the results of the kernels that ran to docs/reference/kernels.md
        #[arg(long, conflicts_with = "short")]
        write: bool,
    },
    /// Write the generated manifests of deploy/kubernetes, and look at every object that a cluster
    /// would get
    Manifests {
        /// Write nothing: fail if a generated file differs
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Setup { check, bench, dist } => setup::run(
            check,
            match (bench, dist) {
                (true, _) => setup::Purpose::Bench,
                (_, true) => setup::Purpose::Dist,
                _ => setup::Purpose::Work,
            },
        ),
        Task::Test { filter, cluster } => test::run(
            filter.as_deref(),
            match cluster {
                true => test::Suites::Cluster,
                false => test::Suites::All,
            },
        ),
        Task::Demo => demo::run(),
        Task::Record => record::run(),
        Task::Install { root } => install::run(&root),
        Task::Dist {
            target,
            check_reproducible,
        } => {
            if check_reproducible {
                dist::check_reproducible()
            } else {
                dist::run(&target)
            }
        }
        Task::PackageTest => package_test::run(),
        Task::Bench { arguments } => bench::run(&arguments),
        Task::VmTest {
            short,
            kernels,
            write,
        } => vm::run(&vm::Wanted {
            short,
            kernels,
            write,
        }),
        Task::Manifests { check } => manifests::run(check),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
