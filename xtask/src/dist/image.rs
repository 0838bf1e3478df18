//! The OCI image: the static program, and nothing else that runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    machine::Privilege,
    step,
    target::Target,
    workspace::{VERSION, empty_directory, source_date, target_directory},
};

/// The largest archive with all machines in it, in bytes.
const LARGEST: u64 = 10_000_000;

/// The name of the list of images, one for each machine.
const NAME: &str = "apifence";

/// Writes one archive with the images of `targets`, each with its program and the SBOM, into
/// `directory`.
pub(super) fn write(targets: &[Target], sbom: &Path, directory: &Path) -> Result<()> {
    let tree = empty_directory("image")?;
    // The directories that a pod mounts something on: a read-only root cannot make them.
    for name in ["etc/apifence", "var/lib/apifence", "sys/fs/bpf", "tmp"] {
        fs::create_dir_all(tree.join(name)).context("make the tree of the image")?;
    }
    fs::copy(sbom, tree.join("sbom.cdx.json")).context("copy the SBOM")?;
    let buildah = Buildah::new()?;
    buildah.run(&["manifest", "create", NAME])?;
    for &target in targets {
        let program = target_directory()?
            .join(target.triple())
            .join("release/apifence");
        fs::copy(program, tree.join("apifence")).context("copy the program")?;
        buildah.image(target, &tree)?;
    }
    let archive = directory.join(format!("apifence-{VERSION}.oci.tar"));
    // buildah compresses for speed, and has no level for lists of images.
    let plain = format!("dir:{}", empty_directory("image-layers")?.display());
    buildah.run(&["manifest", "push", "--all", NAME, &plain])?;
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
        bail!("write the image: it has {size} bytes, more than {LARGEST}");
    }
    Ok(())
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

    /// Commits the image for `target` from the files in `tree` and adds it to the list.
    fn image(&self, target: Target, tree: &Path) -> Result<()> {
        let container = self.output(&["from", "--arch", target.debian(), "scratch"])?;
        let tree = format!("{}/.", tree.display());
        self.run(&["copy", "--chown", "0:0", &container, &tree, "/"])?;
        let description = "Allow-list in XDP for the port of the Kubernetes API server";
        let labels = [
            ("title", "apifence"),
            ("description", description),
            ("version", VERSION),
            ("licenses", "(MIT OR Apache-2.0) AND GPL-2.0-only"),
        ]
        .map(|(name, value)| format!("org.opencontainers.image.{name}={value}"));
        let mut config = vec!["config", "--arch", target.debian(), "--entrypoint"];
        config.extend(["[\"/apifence\"]", "--cmd", "run"]);
        for label in &labels {
            config.extend(["--label", label, "--annotation", label]);
        }
        config.push(&container);
        self.run(&config)?;
        let name = format!("{NAME}-{target}");
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
        self.run(&["manifest", "add", NAME, &name])?;
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
