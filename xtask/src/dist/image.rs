//! The OCI images: a static program each, and nothing else that runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::build::Program;
use crate::{
    machine::Privilege,
    step,
    target::Target,
    workspace::{VERSION, empty_directory, source_date, target_directory},
};

/// The largest archive with all machines in it, in bytes.
const LARGEST: u64 = 10_000_000;

/// An image, of which there is one for each machine.
pub(super) struct Image {
    program: Program,
    description: &'static str,
    licences: &'static str,
    /// What the program is told where a pod says nothing else.
    command: &'static str,
    /// The user and the group that it runs as.
    user: &'static str,
    /// The directories that a pod mounts something on: a read-only root cannot make them.
    directories: &'static [&'static str],
}

impl Image {
    /// The filter, for the DaemonSet with all in it and for static pods.
    pub(super) const APIFENCE: Self = Self {
        program: Program::APIFENCE,
        description: "Allow-list in XDP for the port of the Kubernetes API server",
        licences: "(MIT OR Apache-2.0) AND GPL-2.0-only",
        command: "run",
        user: "0:0",
        directories: &[
            "bpf",
            "etc/apifence",
            "run/apifence",
            "sys/fs/bpf",
            "tmp",
            "var/lib/apifence",
        ],
    };

    /// The agent.
    pub(super) const AGENT: Self = Self {
        program: Program::AGENT,
        description: "Carries the authorized ranges of the Kubernetes API to apifence on a node",
        licences: "MIT OR Apache-2.0",
        command: "run",
        user: "60843:60843",
        directories: &[
            "etc/apifence/ranges.d/kubernetes",
            "run/apifence",
            "var/run/secrets/kubernetes.io/serviceaccount",
        ],
    };

    /// Writes one archive with the images of `targets`, each with its program and the SBOM, into
    /// `directory`.
    pub(super) fn write(&self, targets: &[Target], directory: &Path) -> Result<()> {
        let name = self.program.name();
        let tree = empty_directory("image")?;
        for directory in self.directories {
            fs::create_dir_all(tree.join(directory)).context("make the tree of the image")?;
        }
        let sbom = self.program.sbom(directory);
        fs::copy(sbom, tree.join("sbom.cdx.json")).context("copy the SBOM")?;
        let buildah = Buildah::new()?;
        buildah.run(&["manifest", "create", name])?;
        for &target in targets {
            let program = self.program.path(target, &target_directory()?);
            fs::copy(program, tree.join(name)).context("copy the program")?;
            buildah.image(self, target, &tree)?;
        }
        let archive = directory.join(format!("{name}-{VERSION}.oci.tar"));
        // buildah compresses for speed, and has no level for lists of images.
        let plain = format!("dir:{}", empty_directory("image-layers")?.display());
        buildah.run(&["manifest", "push", "--all", name, &plain])?;
        let place = format!("oci-archive:{}:{VERSION}", archive.display());
        let smallest = [
            "--dest-compress-format",
            "gzip",
            "--dest-compress-level",
            "9",
        ];
        let copy = ["copy", "--quiet", "--all"];
        buildah.as_root(
            "skopeo",
            &[&copy[..], &smallest, &[&plain, &place]].concat(),
        )?;
        let size = fs::metadata(&archive).context("find the image")?.len();
        if size > LARGEST {
            bail!("write the image `{name}`: it has {size} bytes, more than {LARGEST}");
        }
        Ok(())
    }
}

/// buildah with a storage of its own.
struct Buildah {
    storage: PathBuf,
}

impl Buildah {
    fn new() -> Result<Self> {
        let storage = target_directory()?.join("buildah");
        let this = Self { storage };
        // Root owns what an earlier run left there.
        this.as_root("rm", &["-rf", &this.storage.to_string_lossy()])?;
        Ok(this)
    }

    /// Commits `image` for `target` from the files in `tree` and adds it to the list of its name.
    fn image(&self, image: &Image, target: Target, tree: &Path) -> Result<()> {
        let list = image.program.name();
        let container = self.output(&["from", "--arch", target.debian(), "scratch"])?;
        let tree = format!("{}/.", tree.display());
        self.run(&["copy", "--chown", "0:0", &container, &tree, "/"])?;
        let labels = [
            ("title", list),
            ("description", image.description),
            ("version", VERSION),
            ("licenses", image.licences),
        ]
        .map(|(name, value)| format!("org.opencontainers.image.{name}={value}"));
        let entry_point = format!("[\"/{list}\"]");
        let mut config = vec!["config", "--arch", target.debian(), "--user", image.user];
        config.extend(["--entrypoint", &entry_point, "--cmd", image.command]);
        for label in &labels {
            config.extend(["--label", label, "--annotation", label]);
        }
        config.push(&container);
        self.run(&config)?;
        let name = format!("{list}-{target}");
        let date = source_date()?;
        self.run(&[
            "commit",
            "--quiet",
            "--format",
            "oci",
            "--timestamp",
            &date,
            &container,
            &name,
        ])?;
        self.run(&["manifest", "add", list, &name])?;
        self.run(&["rm", &container])
    }

    fn arguments(&self, words: &[&str]) -> Vec<String> {
        let storage = |name| self.storage.join(name).display().to_string();
        let global = ["--storage-driver", "vfs", "--root"].map(str::to_owned);
        global
            .into_iter()
            .chain([storage("root"), "--runroot".to_owned(), storage("run")])
            .chain(words.iter().map(|&word| word.to_owned()))
            .collect()
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        let words = self.arguments(words);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.as_root("buildah", &words)
    }

    fn output(&self, words: &[&str]) -> Result<String> {
        let prefix = Privilege::probe().prefix()?;
        let mut all: Vec<_> = prefix.iter().map(|&word| word.to_owned()).collect();
        all.push("buildah".to_owned());
        all.extend(self.arguments(words));
        let (program, arguments) = all.split_first().context("run `buildah`")?;
        let output = Command::new(program)
            .args(arguments)
            .output()
            .context("run `buildah`")?;
        if !output.status.success() {
            bail!(
                "run `buildah`: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn as_root(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let prefix = Privilege::probe().prefix()?;
        let mut words = prefix.iter().copied().chain([program]);
        let first = words.next().context("run a program without a name")?;
        step::run(Command::new(first).args(words).args(arguments))
    }
}
