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
    /// Install the tools for building and testing: rust-src, bpf-linker, packages for the tests
    Setup {
        /// Only list missing tools and how to install them
        #[arg(long)]
        check: bool,
        /// Also install the programs that the benchmark compares
        #[arg(long)]
        bench: bool,
        /// Also install the tools for making and testing releases
        #[arg(long, conflicts_with = "bench")]
        dist: bool,
    },
    /// Build everything and run all tests, as root or through sudo
    Test {
        /// Run only the tests whose name contains this
        filter: Option<String>,
        /// Run the tests with real API servers; the first time, build one from Debian's sources
        #[arg(long)]
        cluster: bool,
    },
    /// Show the filter at work between two temporary network namespaces
    Demo,
    /// Record the pictures in docs/images: the demo, and the screens of a guarded node
    Record,
    /// Build the release and install it: the binary and an example config
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
        /// Only build this machine's program twice and compare the results
        #[arg(long, conflicts_with = "target")]
        check_reproducible: bool,
    },
    /// Make and test this machine's packages: the .deb in a Debian root with systemd (upgrade,
    /// downgrade, removal, purge), the .rpm with rpm
    PackageTest,
    /// Measure the cost of packets, floods and changes of the list, compared with other tools
    Bench {
        /// The benchmarks (micro, update, flood, service) and options; all by default
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
    /// Write the generated manifests of deploy/kubernetes, and check every object in them
    Manifests {
        /// Only check: fail if a generated file differs
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
