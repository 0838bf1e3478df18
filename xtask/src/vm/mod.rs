//! `cargo xtask vm-test` runs the static binary on Debian's kernels, in virtual machines without
//! hardware virtualisation.

mod cards;
mod case;
mod image;
mod kernels;
mod qemu;
mod report;

use std::{fs, path::PathBuf, process::ExitCode, sync::Mutex, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use self::{
    cards::Emulator,
    case::CaseResult,
    image::{GENERATORS, TOOLS},
    kernels::{KERNELS, Kernel, Role},
    qemu::Machine,
    report::{Page, Results},
};
use crate::{
    dist::build::Program,
    machine::Privilege,
    setup::{self, Purpose},
    target::Target,
    workspace,
};

/// The longest run of one kernel. A quiet machine takes a tenth.
const LIMIT: Duration = Duration::from_mins(15);

/// Held while packages are fetched.
static FETCHING: Mutex<()> = Mutex::new(());

/// Machines at a time.
const AT_A_TIME: usize = 2;

/// The page of the results, from the top of the workspace.
const PAGE: &str = "docs/reference/kernels.md";

/// What was typed.
pub(crate) struct Wanted {
    /// Fewer kernels and fewer cases.
    pub(crate) short: bool,
    /// Kernels by name; all if none is named.
    pub(crate) kernels: Vec<String>,
    /// Write the page of the results.
    pub(crate) write: bool,
}

/// Builds, fetches, boots; prints each case.
pub(crate) fn run(wanted: &Wanted) -> Result<ExitCode> {
    let chosen = chosen(wanted)?;
    let has = |arch| chosen.iter().any(|kernel| kernel.arch == arch);
    let purpose = match has(Target::Aarch64) {
        true => Purpose::Arm64Machines,
        false => Purpose::Machines,
    };
    let set_up = setup::ensure(purpose)?;
    if set_up != ExitCode::SUCCESS {
        return Ok(set_up);
    }
    let into = workspace::target_directory()?;
    let mut programs = Vec::new();
    for arch in [Target::X86_64, Target::Aarch64] {
        if has(arch) {
            let apifence = Program::APIFENCE.build(arch, &into)?;
            programs.push((
                arch,
                [apifence, Program::of_tests("vm-guest").build(arch, &into)?],
            ));
        }
    }
    let left = Mutex::new(chosen.iter());
    let (failures, results) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("no holder panics").next();
                    let Some(kernel) = next else { break };
                    if let Err(error) = test(kernel, wanted.short, &programs, &results) {
                        let failure = format!("kernel {}: {error:#}", kernel.name);
                        eprintln!("error: {failure}");
                        failures.lock().expect("no holder panics").push(kernel.name);
                    }
                }
            });
        }
    });
    if wanted.write {
        let page = workspace::root().join(PAGE);
        let mut text = Page::read(&fs::read_to_string(&page).unwrap_or_default());
        for (kernel, results) in &*results.lock().expect("no holder panics") {
            text.put(kernel, results);
        }
        fs::write(&page, text.text()).with_context(|| format!("write `{PAGE}`"))?;
        println!("vm: wrote {PAGE}");
    }
    let failures = failures.into_inner().expect("no holder panics");
    println!(
        "vm: {} kernels passed, {} failed",
        chosen.len() - failures.len(),
        failures.len()
    );
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn chosen(wanted: &Wanted) -> Result<Vec<&'static Kernel>> {
    for name in &wanted.kernels {
        ensure!(
            KERNELS.iter().any(|kernel| kernel.name == name),
            "find kernel `{name}`: there are {}",
            KERNELS.map(|kernel| kernel.name).join(", ")
        );
    }
    let is_chosen = |kernel: &&Kernel| match &*wanted.kernels {
        [] => kernel.in_short_form || !wanted.short,
        names => names.iter().any(|name| name == kernel.name),
    };
    Ok(KERNELS.iter().filter(is_chosen).collect())
}

/// The directory of everything that is fetched and made.
fn directory() -> Result<PathBuf> {
    Ok(workspace::target_directory()?.join("vm"))
}

/// Boots one kernel and prints its cases; adds them to `results`.
fn test(
    kernel: &Kernel,
    short: bool,
    programs: &[(Target, [PathBuf; 2])],
    results: &Mutex<Vec<(&'static str, Results)>>,
) -> Result<()> {
    let directory = directory()?;
    fs::create_dir_all(&directory)?;
    // Two machines may need the same package lists.
    let fetching = FETCHING.lock().expect("no holder panics");
    let fetched = kernel.fetch(&directory)?;
    let toolsets: &[_] = match kernel.role {
        Role::Generators => &[&TOOLS, &GENERATORS],
        _ => &[&TOOLS],
    };
    let tools = image::tools(&directory, kernel.arch, toolsets)?;
    drop(fetching);
    let programs = programs.iter().find(|(arch, _)| *arch == kernel.arch);
    let (_, programs) = programs.context("find the programs: not built")?;
    let mut emulator = None;
    let role = match kernel.role {
        Role::Refuse => "refuse".to_owned(),
        Role::Guard if short => "guard-short".to_owned(),
        Role::Guard => "guard".to_owned(),
        Role::Generators => "generators".to_owned(),
        Role::Cards => {
            ensure!(Privilege::is_root(), "make network devices: not root");
            let found = emulator.insert(Emulator::find(&directory)?);
            format!("cards {}", found.cards().join(" "))
        }
    };
    let image = image::make(&tools, kernel.arch, &fetched, programs, &role)?;
    let initrd = directory.join(format!("{}.cpio", kernel.name));
    fs::write(&initrd, image).context("write initial file system")?;
    println!("vm: {}: booting Linux {}", kernel.name, fetched.release);
    let mut run = Machine {
        arch: kernel.arch,
        kernel: &fetched.image,
        initrd: &initrd,
        log: &directory.join(format!("{}.log", kernel.name)),
        emulator: emulator.as_ref(),
        limit: LIMIT,
    }
    .run()?;
    if let Some(emulator) = &emulator {
        run.cases.extend(emulator.missing());
    }
    let mut failed = Vec::new();
    for case in &run.cases {
        println!(
            "vm: {}: {} {}: {} s {}",
            kernel.name,
            case.name,
            case.result.word(),
            case.seconds,
            case.text
        );
        if case.result == CaseResult::Failed {
            failed.push(&*case.name);
        }
    }
    results.lock().expect("no holder panics").push((
        kernel.name,
        Results {
            release: fetched.release,
            seconds: run.seconds,
            cases: run.cases.clone(),
        },
    ));
    if let Some(broken) = run.broken {
        anyhow::bail!("{broken}");
    }
    ensure!(!run.cases.is_empty(), "no case was run");
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    println!("vm: {}: passed in {} s", kernel.name, run.seconds);
    Ok(())
}
