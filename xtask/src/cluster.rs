//! The programs of a control plane for the suite `lab`: an API server built from Debian's sources,
//! Debian's etcd and kubectl. They are made once and stay below the target directory.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{debian::Suite, machine::Distribution, step, target::Target, workspace};

/// The suite of Debian with a source package of the API server: the later ones have kubectl alone.
const SUITE: &str = "bookworm";

/// The Go compiler that Debian builds that package with.
const GO: [&str; 2] = ["golang-1.19-go", "golang-1.19-src"];
/// Its directory in those packages.
const GO_ROOT: &str = "usr/lib/go-1.19";

/// The package with the sources of a module that takes the place of the API server's own copy:
/// that one knows the maps of Go before 1.18, and the server would crash on the first object of a
/// custom resource (modern-go/reflect2 1.0.2).
const MODULE: (&str, &str) = (
    "golang-github-modern-go-reflect2-dev",
    "github.com/modern-go/reflect2",
);

/// The packages with programs that are used as they are.
const PACKAGES: [&str; 3] = ["etcd-server", "etcd-client", "kubernetes-client"];
/// Those programs, in `usr/bin`.
const PROGRAMS: [&str; 3] = ["etcd", "etcdctl", "kubectl"];

/// The program that is built.
const API_SERVER: &str = "kube-apiserver";

/// The modules whose types are in the API's description, which the sources lack: it is generated.
const DESCRIBED: [&str; 8] = [
    "api",
    "apiextensions-apiserver",
    "apimachinery",
    "apiserver",
    "client-go",
    "component-base",
    "kube-aggregator",
    "metrics",
];

/// The directory with the programs; makes them if they are not there.
pub(crate) fn programs() -> Result<PathBuf> {
    let directory = workspace::target_directory()?.join("cluster");
    let programs = directory.join("bin");
    if PROGRAMS
        .iter()
        .chain([&API_SERVER])
        .all(|program| programs.join(program).is_file())
    {
        return Ok(programs);
    }
    ensure!(
        Distribution::probe() == Distribution::Debian,
        "make a control plane: it is built from packages of Debian {SUITE}, with apt and dpkg, \
         and this is another distribution\n\
         hint: put {API_SERVER} and {} into `{}`: Kubernetes 1.20 or later, etcd 3.4 or later",
        PROGRAMS.join(", "),
        programs.display()
    );
    println!(
        "cluster: making an API server from the sources in Debian {SUITE}: once; 3 minutes on 2 \
         quiet cores, 2.5 GB below `{}` meanwhile, 180 MB after that",
        directory.display()
    );
    let started = Instant::now();
    // What a build that broke has left.
    let work = workspace::empty_directory("cluster.part")?;
    Build::new(&work)?.run()?;
    let made = work.join("bin");
    if programs.exists() {
        fs::remove_dir_all(&programs)?;
    }
    fs::create_dir_all(&directory)?;
    fs::rename(&made, &programs).with_context(|| format!("make `{}`", programs.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("remove `{}`", work.display()))?;
    println!("cluster: made in {} s", started.elapsed().as_secs());
    Ok(programs)
}

/// One build, in a directory that is removed after it.
struct Build<'a> {
    work: &'a Path,
    suite: Suite,
}

impl<'a> Build<'a> {
    fn new(work: &'a Path) -> Result<Self> {
        println!("cluster: reading the package lists");
        let suite = Suite::with_sources(work, SUITE, Target::native()?)?;
        Ok(Self { work, suite })
    }

    fn run(&self) -> Result<()> {
        println!("cluster: fetching {}", PACKAGES.join(", "));
        let (bin, packages) = (self.work.join("bin"), self.work.join("packages"));
        fs::create_dir(&bin)?;
        self.suite.extract(&PACKAGES, &packages)?;
        for program in PROGRAMS {
            let from = packages.join("usr/bin").join(program);
            fs::rename(&from, bin.join(program))
                .with_context(|| format!("find `{program}` in Debian's packages"))?;
        }
        println!(
            "cluster: fetching {} and the sources of kubernetes",
            GO.join(", ")
        );
        self.suite.extract(&GO, &self.work.join("go"))?;
        let version = self.unpack()?;
        self.replace_module()?;
        println!("cluster: generating the description of the API");
        self.describe()?;
        println!("cluster: building {API_SERVER} {version}");
        self.build(&version, &bin.join(API_SERVER))
    }

    /// The directory of the sources, where Go looks for them.
    fn sources(&self) -> PathBuf {
        self.work.join("gopath/src/k8s.io/kubernetes")
    }

    /// Fetches and unpacks the sources; returns their version, like `v1.20.2`.
    fn unpack(&self) -> Result<String> {
        let (fetched, sources) = (self.work.join("source"), self.sources());
        fs::create_dir(&fetched)?;
        fs::create_dir_all(&sources)?;
        self.suite.source("kubernetes", &fetched)?;
        for entry in fs::read_dir(&fetched)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(version) = version(&name) else {
                continue;
            };
            step::run(
                Command::new("tar")
                    .args(["--extract", "--strip-components=1", "--file"])
                    .arg(entry.path())
                    .arg("--directory")
                    .arg(&sources),
            )?;
            return Ok(version);
        }
        bail!("unpack the sources of kubernetes: Debian's package has no archive of them")
    }

    /// Replaces the sources of [`MODULE`].
    fn replace_module(&self) -> Result<()> {
        let (package, module) = MODULE;
        let unpacked = self.work.join("module");
        self.suite.extract(&[package], &unpacked)?;
        let from = unpacked.join("usr/share/gocode/src").join(module);
        let own = self.sources().join("vendor").join(module);
        fs::remove_dir_all(&own).with_context(|| format!("remove `{}`", own.display()))?;
        fs::rename(&from, &own).with_context(|| format!("find {module} in Debian's package"))
    }

    /// Generates what Debian's build would generate by make. Only the description of the API is
    /// missing in the sources.
    fn describe(&self) -> Result<()> {
        let generator = self.work.join("openapi-gen");
        let mut build = self.go(&["build", "-o"]);
        build
            .arg(&generator)
            .arg("./vendor/k8s.io/kube-openapi/cmd/openapi-gen");
        step::output(&mut build)?;
        let staging = self.sources().join("staging/src");
        let mut packages = BTreeSet::new();
        for module in DESCRIBED {
            described(&staging.join("k8s.io").join(module), &mut packages)?;
        }
        let packages: Vec<_> = packages
            .iter()
            .filter_map(|package| package.strip_prefix(&staging).ok())
            .map(|package| format!("k8s.io/kubernetes/vendor/{}", package.display()))
            .collect();
        let mut generate = self.in_sources(Command::new(generator));
        generate
            .args(["--logtostderr", "-i", &packages.join(",")])
            .args(["-p", "k8s.io/kubernetes/pkg/generated/openapi"])
            .args(["-O", "zz_generated.openapi"])
            .args(["-h", "hack/boilerplate/boilerplate.generatego.txt"])
            .arg("-r")
            .arg(self.work.join("violations"));
        step::output(&mut generate).map(drop)
    }

    fn build(&self, version: &str, program: &Path) -> Result<()> {
        let numbers: Vec<_> = version.trim_start_matches('v').split('.').collect();
        let [major, minor, ..] = numbers[..] else {
            bail!("build {API_SERVER}: version `{version}`");
        };
        let mut flags = "-s -w".to_owned();
        for (name, value) in [
            ("gitVersion", version),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        ] {
            // The server and its aggregator, which answers in its place, have one each.
            for package in ["component-base/version", "client-go/pkg/version"] {
                flags += &format!(" -X k8s.io/kubernetes/vendor/k8s.io/{package}.{name}={value}");
            }
        }
        let mut build = self.go(&["build", "-ldflags", &flags, "-o"]);
        build.arg(program).arg("./cmd/kube-apiserver");
        step::output(&mut build).map(drop)
    }

    /// Go's compiler in the directory of the sources.
    fn go(&self, words: &[&str]) -> Command {
        let program = self.work.join("go").join(GO_ROOT).join("bin/go");
        let mut go = self.in_sources(Command::new(program));
        go.args(words);
        go
    }

    /// `command` in the directory of the sources, with nothing of this machine's Go.
    fn in_sources(&self, mut command: Command) -> Command {
        let temporary = self.work.join("tmp");
        // Go makes its cache by itself, but not this one.
        let _ = fs::create_dir(&temporary);
        command
            .current_dir(self.sources())
            .env("GO111MODULE", "off")
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "")
            .env("GOROOT", self.work.join("go").join(GO_ROOT))
            .env("GOPATH", self.work.join("gopath"))
            .env("GOCACHE", self.work.join("gocache"))
            .env("GOTMPDIR", &temporary)
            .stdin(Stdio::null());
        command
    }
}

/// The version of the sources in this file of a source package, `None` if it does not have them.
/// Debian went back to an older version once: `1.20.5+really1.20.2` is 1.20.2.
fn version(file: &str) -> Option<String> {
    let (version, _) = file.strip_prefix("kubernetes_")?.split_once(".orig.tar")?;
    let (_, version) = version.split_once("+really").unwrap_or(("", version));
    Some(format!("v{version}"))
}

/// Adds the directories below `directory` with a package that asks to be described.
fn described(directory: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)
        .with_context(|| format!("read the sources in `{}`", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            described(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "go")
            && fs::read_to_string(&path)?.contains("+k8s:openapi-gen=")
        {
            found.insert(directory.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn the_version_is_that_of_the_sources() {
        assert_eq!(
            version("kubernetes_1.20.5+really1.20.2.orig.tar.gz").as_deref(),
            Some("v1.20.2")
        );
        assert_eq!(
            version("kubernetes_1.33.4.orig.tar.xz").as_deref(),
            Some("v1.33.4")
        );
        assert_eq!(version("kubernetes_1.33.4-1.debian.tar.xz"), None);
    }
}
