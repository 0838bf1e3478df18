//! `cargo xtask manifests` writes what follows from other files in `deploy/kubernetes`, and looks
//! at every object that a cluster would get: by kustomize, by Helm, by the schemas of Kubernetes.

mod case;
mod chart;
mod objects;
mod tools;
mod validate;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace::{self, VERSION, empty_directory};
use case::{Case, DIRECTORY, HEADER};
use tools::Tools;

/// Writes the generated files, or with `check` fails if one differs. Then looks at all objects.
pub(crate) fn run(check: bool) -> Result<ExitCode> {
    let started = Instant::now();
    let tools = Tools::fetch()?;
    let source = workspace::root().join(DIRECTORY);
    versions_are_this_one(&source)?;
    static_pod_is_as_the_daemon_set(&source)?;
    capabilities_are_those_of_the_unit(&source)?;
    let mut generated = vec![(source.join("base/crds.yaml"), definitions()?)];
    write_or_compare(&generated, check)?;

    let cases = Case::make_all(&tools, &empty_directory("manifests")?)?;
    generated = chart::files(&source.join("chart"), &cases)?;
    write_or_compare(&generated, check)?;
    let outputs = chart::compare(&tools, &source.join("chart"), &cases)?;

    let mut files: Vec<PathBuf> = cases.iter().map(|case| case.file.clone()).collect();
    files.extend(outputs);
    for entry in fs::read_dir(source.join("examples")).context("find the examples")? {
        files.push(entry?.path());
    }
    files.sort();
    println!("{}", validate::all(&tools, &files)?);
    validate::finds_a_fault(&tools, &cases[0])?;
    let seconds = started.elapsed().as_secs_f32();
    println!(
        "manifests: {} cases, chart and kustomize agree, {seconds:.1} s",
        cases.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// The definitions of the API, as the agent itself prints them.
fn definitions() -> Result<String> {
    workspace::build(&["--package", "filter-kube", "--bins"])?;
    let output = Command::new(workspace::program("debug", "apifence-kube")?)
        .arg("crds")
        .output()
        .context("run `apifence-kube crds`")?;
    ensure!(
        output.status.success(),
        "run `apifence-kube crds`: {}",
        output.status
    );
    let text = String::from_utf8(output.stdout).context("read `apifence-kube crds`")?;
    Ok(format!("{HEADER}, from `apifence-kube crds`.\n{text}"))
}

/// Writes `files`, each with its text. With `check` it fails if one has another text.
fn write_or_compare(files: &[(PathBuf, String)], check: bool) -> Result<()> {
    let mut differ = Vec::new();
    for (file, text) in files {
        let have = fs::read_to_string(file).unwrap_or_default();
        if have == *text {
            continue;
        }
        let name = file.strip_prefix(workspace::root()).unwrap_or(file);
        differ.push(format!("`{}`", name.display()));
        if !check {
            let directory = file.parent().context("find the directory of a file")?;
            fs::create_dir_all(directory).context("make a directory")?;
            fs::write(file, text).with_context(|| format!("write `{}`", name.display()))?;
            println!("manifests: wrote `{}`", name.display());
        }
    }
    if check && !differ.is_empty() {
        bail!(
            "compare the manifests with their sources: {} differ\n\
             hint: `cargo xtask manifests` writes them; commit them",
            differ.join(", ")
        );
    }
    Ok(())
}

/// The files that name the version of the images.
const VERSIONED: [&str; 3] = [
    "overlays/agent/kustomization.yaml",
    "overlays/all-in-one/kustomization.yaml",
    "examples/static-pod.yaml",
];

/// Fails if the manifests name another version than this one.
fn versions_are_this_one(source: &Path) -> Result<()> {
    for name in VERSIONED {
        let text =
            fs::read_to_string(source.join(name)).with_context(|| format!("read `{name}`"))?;
        let keys = ["newTag: ", "app.kubernetes.io/version: ", "image: "];
        let named = text.lines().filter_map(|line| {
            let line = line.trim();
            let value = keys.iter().find_map(|key| line.strip_prefix(key))?;
            Some(value.rsplit(':').next().unwrap_or(value))
        });
        let mut count = 0;
        for version in named {
            count += 1;
            ensure!(
                version == VERSION,
                "`{DIRECTORY}/{name}` names the version {version}, and this is {VERSION}"
            );
        }
        ensure!(count > 0, "`{DIRECTORY}/{name}` does not have a version");
    }
    Ok(())
}

/// Fails if the container of the static pod differs from that of the DaemonSet: kustomize cannot
/// make the one from the other.
fn static_pod_is_as_the_daemon_set(source: &Path) -> Result<()> {
    let [pod, set] = [
        "examples/static-pod.yaml",
        "overlays/all-in-one/apifence.yaml",
    ];
    let container = |name: &str| -> Result<Vec<String>> {
        let text =
            fs::read_to_string(source.join(name)).with_context(|| format!("read `{name}`"))?;
        let lines = text.lines().map(str::trim);
        let lines = lines.skip_while(|line| *line != "- name: apifence");
        let lines = lines.take_while(|line| *line != "volumes:");
        Ok(lines
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.replace(&format!(":{VERSION}"), ""))
            .collect())
    };
    let [of_pod, of_set] = [container(pod)?, container(set)?];
    ensure!(
        !of_pod.is_empty(),
        "find the container `apifence` in `{pod}`"
    );
    ensure!(
        of_pod == of_set,
        "the container `apifence` of `{pod}` differs from that of `{set}`"
    );
    Ok(())
}

/// Fails if the container has other capabilities than the unit, which says what each is for.
fn capabilities_are_those_of_the_unit(source: &Path) -> Result<()> {
    let read = |name: &str| {
        let text = fs::read_to_string(source.join(name));
        text.with_context(|| format!("read `{name}`"))
    };
    let unit = read("../apifence.service")?;
    let of_unit = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .context("find the capabilities of the unit")?
        .replace("CAP_", "")
        .replace(' ', ", ");
    let set = read("overlays/all-in-one/apifence.yaml")?;
    ensure!(
        set.contains(&format!("add: [{of_unit}]\n")),
        "the DaemonSet has other capabilities than the unit: {of_unit}"
    );
    Ok(())
}
