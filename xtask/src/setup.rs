//! `cargo xtask setup` installs the tools for building and testing that are missing.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Result, bail};

use crate::{
    linker::{self, Linker},
    machine::{self, Distribution, Privilege},
    step::Step,
    target::Target,
    toolchain::Toolchain,
};

/// A program that the tests start.
struct Tool {
    program: &'static str,
    /// The package that has it, by its name in most distributions.
    package: &'static str,
    /// Whether Debian's package starts a service. Then set-up extracts the program from it.
    starts_service: bool,
}

impl Tool {
    const fn new(program: &'static str, package: &'static str) -> Self {
        Self {
            program,
            package,
            starts_service: false,
        }
    }

    const fn service(program: &'static str, package: &'static str) -> Self {
        Self {
            starts_service: true,
            ..Self::new(program, package)
        }
    }
}

const TOOLS: [Tool; 16] = [
    Tool::new("ip", "iproute2"),
    Tool::new("nft", "nftables"),
    Tool::new("iptables-nft", "iptables"),
    Tool::new("iptables-legacy", "iptables"),
    Tool::new("ethtool", "ethtool"),
    Tool::new("strace", "strace"),
    Tool::new("curl", "curl"),
    Tool::new("jq", "jq"),
    Tool::new("haproxy", "haproxy"),
    Tool::new("bpftool", "bpftool"),
    Tool::new("systemd-analyze", "systemd"),
    Tool::new("zsh", "zsh"),
    Tool::new("fish", "fish"),
    Tool::new("mandoc", "mandoc"),
    Tool::service("promtool", "prometheus"),
    Tool::service("prometheus", "prometheus"),
];

/// The peers of the benchmark.
const PEERS: [Tool; 2] = [
    Tool::new("ipset", "ipset"),
    Tool::new("xdp-filter", "xdp-tools"),
];

/// What the packages and manifests are tried with.
const PACKAGING: [Tool; 12] = [
    Tool::new("debootstrap", "debootstrap"),
    Tool::new("systemd-nspawn", "systemd-container"),
    Tool::new("rpm", "rpm"),
    Tool::new("lintian", "lintian"),
    Tool::new("buildah", "buildah"),
    Tool::new("skopeo", "skopeo"),
    Tool::new("umoci", "umoci"),
    Tool::new("runc", "runc"),
    Tool::new("cpio", "cpio"),
    Tool::new("clang", "clang"),
    Tool::new("npm", "npm"),
    Tool::new("python3", "python3-venv"),
];

/// The programs that make and check packages: crates, with the version that set-up installs.
const CRATES: [(&str, &str); 4] = [
    ("cargo-deb", "3.8.0"),
    ("cargo-generate-rpm", "0.21.1"),
    ("cargo-cyclonedx", "0.5.9"),
    ("cargo-deny", "0.20.2"),
];

/// The programs that make and run virtual machines.
const MACHINES: [Tool; 4] = [
    Tool::new("qemu-system-x86_64", "qemu-system-x86"),
    Tool::new("dpkg-deb", "dpkg"),
    Tool::new("depmod", "kmod"),
    Tool::new("xz", "xz-utils"),
];

/// The same for arm64.
const ARM64_MACHINES: [Tool; 2] = [
    Tool::new("qemu-system-aarch64", "qemu-system-arm"),
    Tool::new("clang", "clang"),
];

/// The purpose of the set-up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building, the tests, the demo.
    Work,
    /// The same and the benchmark.
    Bench,
    /// The same as `Work`, and releases.
    Dist,
    /// Building, and virtual machines.
    Machines,
    /// The same, and those for arm64.
    Arm64Machines,
}

impl Purpose {
    /// The programs for it.
    fn tools(self) -> impl Iterator<Item = &'static Tool> {
        let (tools, further) = match self {
            Self::Work => (&TOOLS[..], &[][..]),
            Self::Bench => (&TOOLS[..], &PEERS[..]),
            Self::Dist => (&TOOLS[..], &PACKAGING[..]),
            Self::Machines => (&MACHINES[..], &[][..]),
            Self::Arm64Machines => (&MACHINES[..], &ARM64_MACHINES[..]),
        };
        tools.iter().chain(further)
    }

    /// The targets for it, in addition to this machine's own.
    fn targets(self) -> &'static [&'static str] {
        match self {
            Self::Work | Self::Bench => &[],
            Self::Machines => const { &[Target::X86_64.triple()] },
            Self::Dist | Self::Arm64Machines => &Target::TRIPLES,
        }
    }

    /// The crates whose programs it needs, each with its version.
    fn crates(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Dist => &CRATES,
            _ => &[],
        }
    }
}

/// The installed and the missing tools of this machine.
struct Survey {
    purpose: Purpose,
    toolchain: Toolchain,
    linker: Linker,
    distribution: Distribution,
    /// Missing components of the toolchain.
    components: Vec<&'static str>,
    tools: Vec<&'static Tool>,
    /// Missing targets of the toolchain.
    targets: Vec<&'static str>,
    /// Missing programs that cargo installs, each with its version.
    crates: Vec<(&'static str, &'static str)>,
    /// LLVM packages: needed only while `bpf-linker` must be built.
    llvm_packages: Vec<String>,
}

/// Sets the machine up, or with `check` only prints the missing steps.
pub(crate) fn run(check: bool, purpose: Purpose) -> Result<ExitCode> {
    let survey = Survey::make(purpose)?;
    if survey.complete() {
        println!("setup: nothing to do: {}", survey.found());
        return Ok(ExitCode::SUCCESS);
    }
    survey.report();
    if check {
        println!("setup: would run:");
        for line in survey.lines() {
            println!("  {line}");
        }
        return Ok(ExitCode::FAILURE);
    }
    let left = install(&survey)?;
    let survey = Survey::make(purpose)?;
    if survey.complete() {
        println!("setup: done: {}", survey.found());
        return Ok(ExitCode::SUCCESS);
    }
    if left.is_empty() {
        // Most likely cargo installs into a directory that is not in PATH.
        survey.report();
        bail!("set up this machine: everything is installed, but not in `PATH`");
    }
    eprintln!("error: set up this machine: some tools need a manual step");
    eprintln!("hint: run these, then `cargo xtask setup` again:");
    for line in left {
        eprintln!("  {line}");
    }
    Ok(ExitCode::FAILURE)
}

/// Sets the machine up for tasks that need it; silent if nothing is missing.
pub(crate) fn ensure(purpose: Purpose) -> Result<ExitCode> {
    if Survey::make(purpose)?.complete() {
        Ok(ExitCode::SUCCESS)
    } else {
        run(false, purpose)
    }
}

/// Installs as much as possible from here, and returns the lines that a person has to run for the
/// rest.
fn install(survey: &Survey) -> Result<Vec<String>> {
    let privilege = Privilege::probe();
    let mut left = Vec::new();
    let rustup = machine::find_program("rustup").is_some();
    for step in survey.rustup_steps() {
        if rustup {
            step.run(privilege)?;
        } else {
            left.push(format!(
                "# the toolchain is not from rustup; use its own tools for: {step}"
            ));
        }
    }
    for step in survey.crate_steps() {
        step.run(privilege)?;
    }
    if survey.distribution != Distribution::Debian {
        left.extend(survey.package_lines());
        left.extend(survey.linker_lines());
        return Ok(left);
    }
    if !privilege.may_install() {
        left.extend(survey.package_lines());
        if survey.llvm_packages.is_empty() {
            survey
                .linker_step()
                .map_or(Ok(()), |step| step.run(privilege))?;
        } else {
            left.extend(survey.linker_lines());
        }
        return Ok(left);
    }
    let unavailable = install_packages(survey, privilege)?;
    let (llvm, others): (Vec<_>, Vec<_>) = unavailable
        .into_iter()
        .partition(|package| survey.llvm_packages.contains(package));
    if !others.is_empty() {
        left.push(format!(
            "# not in this system's package lists: {}",
            others.join(" ")
        ));
    }
    if llvm.is_empty() {
        survey
            .linker_step()
            .map_or(Ok(()), |step| step.run(privilege))?;
    } else {
        left.extend(linker::advice(survey.toolchain.llvm, true));
    }
    Ok(left)
}

/// Installs the packages that apt knows, and returns the others.
fn install_packages(survey: &Survey, privilege: Privilege) -> Result<Vec<String>> {
    let mut packages = survey.packages();
    let extracted = survey.extracted_tools();
    packages.extend(extracted.keys().map(|&package| package.to_owned()));
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    if let Err(error) = apt_get("update").run(privilege) {
        eprintln!("warning: {error:#}; using the present package lists");
    }
    let unavailable = machine::unavailable_packages(&packages);
    let installed: Vec<_> = survey
        .packages()
        .into_iter()
        .filter(|package| !unavailable.contains(package))
        .collect();
    if !installed.is_empty() {
        apt_get("install -y --no-install-recommends")
            .words(installed)
            .run(privilege)?;
    }
    for (package, programs) in extracted {
        if !unavailable.iter().any(|other| other == package) {
            extraction(package, &programs).run(privilege)?;
        }
    }
    Ok(unavailable)
}

/// Extracts programs from a Debian package, without the package's scripts, which would start its
/// service.
fn extraction(package: &str, programs: &[&str]) -> Step {
    let programs = programs.join(" usr/bin/");
    Step::root("sh -ec").words([format!(
        "cd $(mktemp -d); apt-get -q download {package}; dpkg-deb -x {package}_*.deb .; \
         install usr/bin/{programs} /usr/local/bin/; rm -r $PWD"
    )])
}

/// An `apt-get` without prompts that waits for another one to finish.
fn apt_get(arguments: &str) -> Step {
    Step::root(&format!(
        "apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 {arguments}"
    ))
    .variable("DEBIAN_FRONTEND", "noninteractive")
}

impl Survey {
    fn make(purpose: Purpose) -> Result<Self> {
        let toolchain = Toolchain::probe()?;
        let distribution = Distribution::probe();
        let linker = Linker::probe(toolchain.llvm);
        let builds_linker = !matches!(linker, Linker::Fits(_));
        let llvm_packages = if builds_linker && distribution == Distribution::Debian {
            machine::missing_packages(&linker::packages(toolchain.llvm))
        } else {
            Vec::new()
        };
        let tools = purpose
            .tools()
            .filter(|tool| machine::find_program(tool.program).is_none())
            .collect();
        Ok(Self {
            purpose,
            components: toolchain.missing_components(),
            targets: toolchain.missing_targets(purpose.targets()),
            crates: purpose
                .crates()
                .iter()
                .copied()
                .filter(|(program, _)| machine::find_program(program).is_none())
                .collect(),
            toolchain,
            linker,
            distribution,
            tools,
            llvm_packages,
        })
    }

    fn complete(&self) -> bool {
        self.components.is_empty()
            && self.tools.is_empty()
            && self.targets.is_empty()
            && self.crates.is_empty()
            && !self.builds_linker()
    }

    fn builds_linker(&self) -> bool {
        !matches!(self.linker, Linker::Fits(_))
    }

    /// One line with the installed tools.
    fn found(&self) -> String {
        let tools: Vec<_> = self.purpose.tools().map(|tool| tool.program).collect();
        format!(
            "rustc {} (LLVM {}), rust-src, {}, {}",
            self.toolchain.release,
            self.toolchain.llvm,
            self.linker,
            tools.join(", ")
        )
    }

    /// Prints the missing tools, and the consequences.
    fn report(&self) {
        if !self.components.is_empty() {
            println!(
                "setup: the toolchain {} lacks {}",
                self.toolchain.rustup_name(),
                self.components.join(", ")
            );
        }
        for target in &self.targets {
            println!("setup: the toolchain cannot build for {target}");
        }
        for (program, version) in &self.crates {
            println!("setup: packages are made with `{program}` {version}");
        }
        if self.builds_linker() {
            println!(
                "setup: {} (rustc {} has LLVM {})",
                self.linker, self.toolchain.release, self.toolchain.llvm
            );
        }
        if !self.llvm_packages.is_empty() {
            println!(
                "setup: building bpf-linker takes {}",
                self.llvm_packages.join(", ")
            );
        }
        for Tool {
            program, package, ..
        } in &self.tools
        {
            println!("setup: `{program}` ({package}) is not installed");
        }
    }

    /// The programs to extract, by package.
    fn extracted_tools(&self) -> BTreeMap<&'static str, Vec<&'static str>> {
        let mut programs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for tool in self.tools.iter().filter(|tool| self.extracts(tool)) {
            programs.entry(tool.package).or_default().push(tool.program);
        }
        programs
    }

    fn extracts(&self, tool: &Tool) -> bool {
        self.distribution == Distribution::Debian && tool.starts_service
    }

    /// The packages to install.
    fn packages(&self) -> Vec<String> {
        let tools = self
            .tools
            .iter()
            .filter(|tool| !self.extracts(tool))
            .map(|tool| match (self.distribution, tool.package) {
                (Distribution::Fedora, "iproute2") => "iproute".to_owned(),
                (Distribution::Fedora, "iptables") => tool.program.to_owned(),
                (_, package) => package.to_owned(),
            });
        let mut packages: Vec<String> = tools.collect();
        // Some packages have several of the programs.
        packages.dedup();
        packages.extend(self.llvm_packages.iter().cloned());
        packages
    }

    /// What rustup installs.
    fn rustup_steps(&self) -> Vec<Step> {
        let add = |kind: &str, names: &[&'static str]| {
            let add = Step::user(&format!("rustup {kind} add --toolchain"))
                .words([self.toolchain.rustup_name()]);
            (!names.is_empty()).then(|| add.words(names.iter().copied()))
        };
        add("component", &self.components)
            .into_iter()
            .chain(add("target", &self.targets))
            .collect()
    }

    /// What cargo installs.
    fn crate_steps(&self) -> Vec<Step> {
        let install = |(program, version): &(&str, &str)| {
            // Unoptimized: they are used a few times, and compiling is what takes time.
            Step::user("cargo install --locked --debug --version").words([*version, *program])
        };
        self.crates.iter().map(install).collect()
    }

    /// The lines that install the packages, for a person to run.
    fn package_lines(&self) -> Vec<String> {
        let packages = self.packages();
        let extracted = self.extracted_tools().into_iter();
        let extractions = extracted.map(|(package, programs)| extraction(package, &programs));
        let install = match self.distribution.install_command() {
            _ if packages.is_empty() => None,
            Some(command) => Some(Step::root(command).words(packages).to_string()),
            None => Some(format!(
                "# install with this system's package manager: {}",
                packages.join(" ")
            )),
        };
        let mut lines: Vec<_> = install.into_iter().collect();
        lines.extend(extractions.map(|step| step.to_string()));
        if self.distribution == Distribution::Debian && !lines.is_empty() {
            lines.insert(0, Step::root("apt-get update").to_string());
        }
        lines
    }

    /// All remaining steps, as lines for a person to run.
    fn lines(&self) -> Vec<String> {
        let steps = self.rustup_steps().into_iter().chain(self.crate_steps());
        let mut lines: Vec<_> = steps.map(|step| step.to_string()).collect();
        lines.extend(self.package_lines());
        lines.extend(self.linker_lines());
        lines
    }

    fn linker_step(&self) -> Option<Step> {
        self.builds_linker()
            .then(|| linker::install(self.toolchain.llvm))
    }

    /// The lines that install `bpf-linker`, for a person to run.
    fn linker_lines(&self) -> Vec<String> {
        match (self.linker_step(), self.distribution) {
            (None, _) => Vec::new(),
            (Some(step), Distribution::Debian) => vec![step.to_string()],
            (Some(_), _) => linker::advice(self.toolchain.llvm, false),
        }
    }
}
