//! `cargo xtask package-test` makes this machine's packages and tries them: the .deb in a Debian
//! root with systemd, the .rpm with rpm, the image with runc.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    dist::{self, archive::Pages, build::Program, packages},
    machine::Privilege,
    setup::{self, Purpose},
    step,
    target::Target,
    workspace::{self, VERSION, empty_directory, target_directory},
};

/// The last commit of the version before, whose maps have another layout than this one's, and its
/// version.
const PREVIOUS: (&str, &str) = ("3f2220e6625a7891d88ca497ca53e98887e422aa", "0.1.0-1");

/// The Debian release whose systemd the package is tried with.
const SUITE: &str = "bookworm";

/// Makes the packages and tries them.
pub(crate) fn run() -> Result<ExitCode> {
    let set_up = setup::ensure(Purpose::Dist)?;
    if set_up != ExitCode::SUCCESS {
        return Ok(set_up);
    }
    let target = Target::native()?;
    let missing = missing_history()?;
    let previous = match missing {
        None => Some(previous_package(target)?),
        Some(_) => None,
    };
    let made = dist::make(&[target])?;
    let package = only_file(&made, "deb")?;
    lint(&package)?;
    try_rpm(&only_file(&made, "rpm")?)?;

    workspace::build(&[
        "--package",
        "tests",
        "--bin",
        "package-test",
        "--bin",
        "image-test",
    ])?;
    try_images(&made)?;
    let root = debian_root()?;
    let program = workspace::program("debug", "package-test")?;
    let mut words = vec![
        "--root".as_ref(),
        root.as_os_str(),
        "--package".as_ref(),
        package.as_os_str(),
    ];
    if let Some(previous) = &previous {
        words.extend(["--previous".as_ref(), previous.as_os_str()]);
    }
    as_root(&program.to_string_lossy(), &words)?;
    match missing {
        None => println!("package-test: passed"),
        Some(cause) => println!("package-test: passed, not run: upgrade and downgrade: {cause}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Why the version before cannot be built; `None` if it can.
fn missing_history() -> Result<Option<String>> {
    let (commit, _) = PREVIOUS;
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        let git = git.args(words).current_dir(workspace::root());
        git.output().context("run `git`")
    };
    if git(&["cat-file", "-e", &format!("{commit}^{{commit}}")])?
        .status
        .success()
    {
        return Ok(None);
    }
    let shallow = git(&["rev-parse", "--is-shallow-repository"])?.stdout;
    Ok(Some(match shallow.starts_with(b"true") {
        true => format!("this clone is shallow, without commit {commit}: `git fetch --unshallow`"),
        false => format!("these sources are without commit {commit}: make a clone"),
    }))
}

/// Builds the program of the version before, and packages it as this version's is packaged.
fn previous_package(target: Target) -> Result<PathBuf> {
    let (commit, version) = PREVIOUS;
    let file = target_directory()?.join(format!("apifence-{version}.deb"));
    if file.exists() {
        return Ok(file);
    }
    let sources = empty_directory("previous")?;
    step::run(
        Command::new("sh")
            .arg("-ec")
            .arg("git archive \"$1\" > ../previous.tar; tar -x -f ../previous.tar; rm ../previous.tar")
            .args(["sh", commit])
            .env("GIT_DIR", workspace::root().join(".git"))
            .current_dir(&sources),
    )?;
    let program =
        Program::APIFENCE.build_from(&sources, workspace::root(), target, &target_directory()?)?;
    Pages::write(&program)?;
    describe_package(&sources)?;
    packages::deb(&sources, target, &file, &["--deb-version", version])?;
    Ok(file)
}

/// Gives the sources of the version before, which made no packages, the description of this
/// version's, and the files that are named there and that they do not have. The program and the
/// unit are their own.
fn describe_package(sources: &Path) -> Result<()> {
    let read = |file: &Path| {
        fs::read_to_string(file).with_context(|| format!("read `{}`", file.display()))
    };
    let write = |file: &Path, text: String| {
        fs::write(file, text).with_context(|| format!("write `{}`", file.display()))
    };
    let manifest = read(&workspace::root().join("filter-user/Cargo.toml"))?;
    let description = manifest
        .find("[package.metadata.deb]")
        .map(|start| &manifest[start..])
        .context("find the description of the package in filter-user/Cargo.toml")?;
    let pages = target_directory()?.join("pages");
    // Its program writes no page about files.
    let lines = description
        .lines()
        .filter(|line| !line.contains("/man/*.5"));
    let description: String = lines.map(|line| format!("{line}\n")).collect();
    let description = description.replace("../target/pages", &pages.to_string_lossy());
    let old = sources.join("filter-user/Cargo.toml");
    write(&old, format!("{}\n{description}", read(&old)?))?;
    let unit = sources.join("deploy/apifence.service");
    write(
        &unit,
        read(&unit)?.replace("/usr/local/bin/apifence", "/usr/bin/apifence"),
    )?;
    step::run(
        Command::new("cp")
            .args(["--recursive", "--no-clobber"])
            .args(["deploy", "docs"].map(|name| workspace::root().join(name)))
            .arg(sources),
    )
}

/// Makes a fresh Debian root. The first time it comes from the network.
fn debian_root() -> Result<PathBuf> {
    let base = target_directory()?.join("debian-root.tar");
    let root = target_directory()?.join("debian-root");
    as_root("rm", &["-rf".as_ref(), root.as_os_str()])?;
    if !base.exists() {
        let include = "--include=systemd,systemd-sysv,dbus,iproute2,kmod,procps";
        as_root(
            "debootstrap",
            &[
                "--variant=minbase".as_ref(),
                include.as_ref(),
                SUITE.as_ref(),
                root.as_os_str(),
            ],
        )?;
        as_root(
            "tar",
            &[
                "-c".as_ref(),
                "-f".as_ref(),
                base.as_os_str(),
                "-C".as_ref(),
                root.as_os_str(),
                ".".as_ref(),
            ],
        )?;
        return Ok(root);
    }
    fs::create_dir(&root).context("make the root")?;
    as_root(
        "tar",
        &[
            "-x".as_ref(),
            "-f".as_ref(),
            base.as_os_str(),
            "-C".as_ref(),
            root.as_os_str(),
        ],
    )?;
    Ok(root)
}

/// Has lintian look at `package`; fails at any tag.
fn lint(package: &Path) -> Result<()> {
    step::run(
        Command::new("lintian")
            .args(["--fail-on", "error,warning,info", "--allow-root"])
            .arg(package),
    )
}

/// Has rpm read `package`, unpacks it, and runs the program in it.
fn try_rpm(package: &Path) -> Result<()> {
    let query = |option: &str| -> Result<String> {
        let output = Command::new("rpm")
            .args(["--query", "--package", option])
            .arg(package)
            .output()
            .context("run `rpm`")?;
        ensure!(
            output.status.success(),
            "read the package with rpm: {}",
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (files, config) = (query("--list")?, query("--configfiles")?);
    for file in [
        "/usr/bin/apifence",
        "/usr/lib/systemd/system/apifence.service",
    ] {
        ensure!(
            files.lines().any(|line| line == file),
            "the .rpm lacks `{file}`"
        );
    }
    ensure!(
        config.trim() == "/etc/apifence/apifence.toml",
        "the config files of the .rpm: {config}"
    );
    ensure!(
        query("--scripts")?.contains("No filter is attached"),
        "the .rpm does not print its text"
    );
    ensure!(
        query("--requires")?.lines().all(|line| line == "/bin/sh"
            || ["rpmlib(", "config("]
                .iter()
                .any(|own| line.starts_with(own))),
        "the .rpm needs other packages"
    );
    let unpacked = empty_directory("rpm")?;
    let unpack = "rpm2cpio \"$1\" | cpio --extract --make-directories --quiet";
    step::run(
        Command::new("sh")
            .args(["-ec", unpack, "sh"])
            .arg(package)
            .current_dir(&unpacked),
    )?;
    step::run(Command::new(unpacked.join("usr/bin/apifence")).arg("--version"))
}

/// Unpacks the images for this machine from the release in `made`, and tries them with runc.
fn try_images(made: &Path) -> Result<()> {
    let [filter, agent] = ["apifence", "apifence-kube"].map(|name| unpack_image(made, name));
    let program = workspace::program("debug", "image-test")?;
    let manifest = "deploy/kubernetes/overlays/all-in-one/apifence.yaml";
    as_root(
        &program.to_string_lossy(),
        &[
            "--bundle".as_ref(),
            filter?.as_os_str(),
            "--agent-bundle".as_ref(),
            agent?.as_os_str(),
            "--manifest".as_ref(),
            workspace::root().join(manifest).as_os_str(),
        ],
    )
}

/// Unpacks the image `name` for this machine from the release in `made`, into a bundle for runc.
fn unpack_image(made: &Path, name: &str) -> Result<PathBuf> {
    let archive = made.join(format!("{name}-{VERSION}.oci.tar"));
    let layout = empty_directory("image-layout")?;
    let bundle = target_directory()?.join(format!("image-bundle-{name}"));
    as_root("rm", &["-rf".as_ref(), bundle.as_os_str()])?;
    let copy = |from: &str, to: &str| {
        as_root(
            "skopeo",
            &[
                "copy".as_ref(),
                "--quiet".as_ref(),
                from.as_ref(),
                to.as_ref(),
            ],
        )
    };
    copy(
        &format!("oci-archive:{}", archive.display()),
        &format!("oci:{}:try", layout.display()),
    )?;
    as_root(
        "umoci",
        &[
            "unpack".as_ref(),
            "--image".as_ref(),
            format!("{}:try", layout.display()).as_ref(),
            bundle.as_os_str(),
        ],
    )?;
    Ok(bundle)
}

/// The one file in `directory` with this extension.
fn only_file(directory: &Path, extension: &str) -> Result<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|one| one == extension));
    match files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!(
            "find the .{extension}: {} of them in `{}`",
            files.len(),
            directory.display()
        ),
    }
}

/// Runs `program` as root; fails if it fails.
fn as_root(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let prefix = Privilege::probe().prefix_with_environment()?;
    let mut words = prefix.into_iter().chain([program]);
    let first = words.next().context("run a program without a name")?;
    step::run(
        Command::new(first)
            .args(words)
            .args(arguments)
            .stdin(Stdio::null()),
    )
}
