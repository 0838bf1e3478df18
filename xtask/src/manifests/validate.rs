//! The schemas of Kubernetes, by kubernetes-validate.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{case::Case, tools::Tools};

/// The versions of Kubernetes whose schemas are asked. The first is the oldest with all kinds: it
/// has policies of admission.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// The kinds that Kubernetes has no schema for: our own. Theirs is in the definitions.
const OWN: [&str; 2] = ["AuthorizedRanges", "NodeGuard"];

/// Has every object in `files` validated; fails if one is wrong, or has no schema and should.
/// Returns what was and what was not validated.
pub(super) fn all(tools: &Tools, files: &[PathBuf]) -> Result<String> {
    let mut valid = 0;
    let mut unknown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for version in VERSIONS {
        let (success, lines) = ask(&mut tools.validator(version, files))?;
        ensure!(
            success,
            "validate the objects for Kubernetes {version}:\n{}",
            faults(&lines)
        );
        valid = 0;
        for line in &lines {
            if line.contains(" passed for resource ") {
                valid += 1;
            } else if let Some((file, kind)) = without_schema(line) {
                ensure!(
                    OWN.contains(&kind),
                    "validate the objects for Kubernetes {version}: {line}"
                );
                let file = PathBuf::from(file);
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                unknown
                    .entry(kind.to_owned())
                    .or_default()
                    .insert(name.into_owned());
            } else {
                bail!("read what the validator says: `{line}`");
            }
        }
        ensure!(valid > 0, "validate the objects: none was found");
    }
    let mut report = format!(
        "manifests: {valid} objects in {} files are valid for Kubernetes {}",
        files.len(),
        VERSIONS.join(" and ")
    );
    for (kind, files) in unknown {
        let files: Vec<_> = files.into_iter().collect();
        report.push_str(&format!(
            "\nmanifests: not validated, without a schema: {kind} in {}",
            files.join(", ")
        ));
    }
    Ok(report)
}

/// Fails if the validator does not find a field that there is not.
pub(super) fn finds_a_fault(tools: &Tools, case: &Case) -> Result<()> {
    let faulty = case.text.replace("hostNetwork:", "hostNetwrk:");
    ensure!(faulty != case.text, "plant a fault: no `hostNetwork`");
    let file = case.file.with_extension("faulty.yaml");
    fs::write(&file, faulty).context("plant a fault")?;
    let (success, lines) = ask(&mut tools.validator(VERSIONS[0], &[file]))?;
    ensure!(
        !success && faults(&lines).contains("hostNetwrk"),
        "plant a fault: the validator does not find it"
    );
    Ok(())
}

/// Runs the validator: whether it has found nothing, and its lines.
fn ask(validator: &mut Command) -> Result<(bool, Vec<String>)> {
    let output = validator.output().context("run `kubernetes-validate`")?;
    let text = [output.stdout, output.stderr].map(|out| String::from_utf8_lossy(&out).into_owned());
    let lines = text.iter().flat_map(|text| text.lines());
    Ok((output.status.success(), lines.map(str::to_owned).collect()))
}

/// The lines that say what is wrong.
fn faults(lines: &[String]) -> String {
    let faults = lines.iter().filter(|line| !line.starts_with("INFO "));
    faults.cloned().collect::<Vec<_>>().join("\n")
}

/// The file and the kind that `line` finds no schema for.
fn without_schema(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("WARN ")?;
    let (file, rest) = line.split_once(" Couldn't find schema for kind ")?;
    Some((file, rest.split(' ').next()?))
}
