//! What users apply: the shapes, each with and without the components.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::tools::Tools;
use crate::{step, workspace};

/// Where the manifests are, below the top of the workspace.
pub(super) const DIRECTORY: &str = "deploy/kubernetes";

/// The shapes: overlays of kustomize, and values of the chart.
pub(super) const SHAPES: [&str; 2] = ["agent", "all-in-one"];

/// The line before what the build writes into a file of YAML.
pub(super) const HEADER: &str = "# Written by `cargo xtask manifests`";

/// A shape with some of the components, and what kustomize makes of them.
pub(super) struct Case {
    pub(super) shape: &'static str,
    pub(super) config_map: bool,
    pub(super) own_node: bool,
    /// The objects, as YAML.
    pub(super) text: String,
    /// The file with the same text.
    pub(super) file: PathBuf,
}

impl Case {
    /// The cases in `work`, a directory for them: each shape alone, with each component, with both.
    pub(super) fn make_all(tools: &Tools, work: &Path) -> Result<Vec<Self>> {
        // kustomize takes relative paths alone.
        step::run(
            Command::new("cp")
                .arg("-r")
                .arg(workspace::root().join(DIRECTORY))
                .arg(work.join("kubernetes")),
        )?;
        let mut cases = Vec::new();
        for shape in SHAPES {
            for (config_map, own_node) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                cases.push(Self::make(tools, work, shape, config_map, own_node)?);
            }
        }
        Ok(cases)
    }

    fn make(
        tools: &Tools,
        work: &Path,
        shape: &'static str,
        config_map: bool,
        own_node: bool,
    ) -> Result<Self> {
        let components = [("config-map", config_map), ("own-node", own_node)];
        let components: Vec<_> = components
            .iter()
            .filter(|(_, wanted)| *wanted)
            .map(|(name, _)| *name)
            .collect();
        let name = [&[shape], &components[..]].concat().join("+");
        let mut kustomization = format!("resources: [../kubernetes/overlays/{shape}]\n");
        for (index, component) in components.iter().enumerate() {
            let key = ["components:\n", ""][index.min(1)];
            kustomization.push_str(&format!("{key}- ../kubernetes/components/{component}\n"));
        }
        let text = tools.kustomize(&work.join(&name), &[("kustomization.yaml", &kustomization)])?;
        let file = work.join(format!("{name}.yaml"));
        fs::write(&file, &text).context("write the objects of kustomize")?;
        Ok(Self {
            shape,
            config_map,
            own_node,
            text,
            file,
        })
    }

    /// Its name: that of its file.
    pub(super) fn name(&self) -> String {
        let name = self.file.file_stem().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}
