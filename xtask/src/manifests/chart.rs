//! The Helm chart: its templates are what kustomize makes, with values in the place of some words.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    case::{Case, HEADER, SHAPES},
    objects::{kind, objects, replace, replace_inside, stream},
    tools::Tools,
};
use crate::workspace::VERSION;

/// The namespace of the manifests; the release's in the chart.
const NAMESPACE: &str = "apifence-system";

/// The tag of the images in the chart.
const TAG: &str = "{{ .Values.tag | default .Chart.AppVersion }}";

/// The files of the chart in `directory` that follow from `cases`, each with its text.
pub(super) fn files(directory: &Path, cases: &[Case]) -> Result<Vec<(PathBuf, String)>> {
    let find = |shape, config_map, own_node| {
        let found = cases.iter().find(|case| {
            (case.shape, case.config_map, case.own_node) == (shape, config_map, own_node)
        });
        found.context("find a case")
    };
    let [agent, all_in_one] = SHAPES;
    let plain = find(agent, false, false)?;
    ensure!(
        !plain.text.contains("{{"),
        "make the chart: an object has the brackets of a template"
    );
    let header = format!("{HEADER}: change the files of kustomize instead.");
    let template = |name: &str| directory.join("templates").join(name);
    let common: Vec<_> = objects(&plain.text).filter(|one| is_common(one)).collect();
    let mut files = vec![
        (directory.join("Chart.yaml"), description(&header)),
        (
            directory.join("crds/crds.yaml"),
            stream(
                &header,
                objects(&plain.text).filter(|one| is_definition(one)),
            ),
        ),
        (
            template("rights.yaml"),
            in_release(&stream(&header, common.iter().copied())),
        ),
    ];
    for (shape, resources) in [
        (agent, &["agent"][..]),
        (all_in_one, &["agent", "apifence"][..]),
    ] {
        let case = find(shape, false, false)?;
        let others = objects(&case.text).filter(|one| is_common(one));
        ensure!(
            others.eq(common.iter().copied()),
            "make the chart: the shapes differ in more than the DaemonSet"
        );
        let set = objects(&case.text).find(|one| kind(one) == Some("DaemonSet"));
        let set = daemon_set(set.context("find the DaemonSet")?, resources)?;
        let condition = format!("eq .Values.shape \"{shape}\"");
        let name = format!("daemonset-{shape}.yaml");
        files.push((
            template(&name),
            only_if(&condition, &stream(&header, [&*set])),
        ));
    }
    let further = |case: &Case| {
        let known: Vec<_> = objects(&plain.text).collect();
        let new = objects(&case.text).filter(|one| kind(one) != Some("DaemonSet"));
        let new = new.filter(|one| !known.contains(one));
        in_release(&stream(&header, new))
    };
    let config_map = further(find(agent, true, false)?);
    let config_map = replace(
        &config_map,
        "- apifence-ranges\n",
        "- {{ .Values.configMap }}\n",
        1,
    )?;
    files.push((
        template("config-map.yaml"),
        only_if(".Values.configMap", &config_map),
    ));
    let own_node = further(find(agent, false, true)?);
    files.push((
        template("own-node.yaml"),
        only_if(".Values.ownNode", &own_node),
    ));
    Ok(files)
}

/// Compares, for each case, what Helm makes with what kustomize makes. Returns the files with the
/// objects of Helm.
pub(super) fn compare(tools: &Tools, chart: &Path, cases: &[Case]) -> Result<Vec<PathBuf>> {
    refuses_unknown_values(tools, chart)?;
    let mut outputs = vec![takes_values(tools, chart, cases)?];
    for case in cases {
        let mut sets = vec![format!("ownNode={}", case.own_node)];
        if case.config_map {
            sets.push("configMap=apifence-ranges".to_owned());
        }
        if case.shape != SHAPES[0] {
            sets.push(format!("shape={}", case.shape));
        }
        let sets = sets.join(",");
        tools.helm(&["lint", "--strict", "--set", &sets], chart)?;
        let made = ["template", "apifence", "--namespace", NAMESPACE];
        let made = [&made[..], &["--include-crds", "--set", &sets]].concat();
        let by_helm = tools.helm(&made, chart)?;
        let file = case.file.with_extension("helm.yaml");
        fs::write(&file, &by_helm).context("write the objects of Helm")?;
        same_objects(tools, case, &by_helm)?;
        outputs.push(file);
    }
    Ok(outputs)
}

/// Fails unless kustomize reads the same objects from both, the namespace apart: Helm makes it, or
/// expects it.
fn same_objects(tools: &Tools, case: &Case, by_helm: &str) -> Result<()> {
    let by_kustomize = objects(&case.text).filter(|one| kind(one) != Some("Namespace"));
    let by_kustomize = stream("#", by_kustomize);
    let mut files = Vec::new();
    for (maker, text) in [("kustomize", &*by_kustomize), ("helm", by_helm)] {
        // In one order of objects and of fields.
        let kustomization = "resources: [objects.yaml]\nsortOptions: { order: legacy }\n";
        let directory = case.file.with_extension(format!("{maker}.read"));
        let text = tools.kustomize(
            &directory,
            &[
                ("objects.yaml", text),
                ("kustomization.yaml", kustomization),
            ],
        )?;
        let file = directory.join("read.yaml");
        fs::write(&file, text).context("write objects")?;
        files.push(file);
    }
    let difference = Command::new("diff")
        .arg("-u")
        .args(&files)
        .output()
        .context("run `diff`")?;
    ensure!(
        difference.status.success(),
        "compare Helm with kustomize for {}:\n{}",
        case.name(),
        String::from_utf8_lossy(&difference.stdout)
    );
    Ok(())
}

/// Fails if a value with an error in its name is taken.
fn refuses_unknown_values(tools: &Tools, chart: &Path) -> Result<()> {
    for wrong in [
        "sever=https://192.0.2.1:6443",
        "shape=both",
        "images.agnet=x",
    ] {
        let made = tools.helm(&["template", "apifence", "--set", wrong], chart);
        ensure!(
            made.is_err(),
            "make the chart: it takes the value `{wrong}`"
        );
    }
    Ok(())
}

/// Fails unless every value is in what the chart makes. Returns the file with the objects.
fn takes_values(tools: &Tools, chart: &Path, cases: &[Case]) -> Result<PathBuf> {
    // Each value, and the line that it is in.
    let values = [
        ("shape=all-in-one", "- name: APIFENCE_BPFFS"),
        ("tag=9.9", "image: \"other-agent:9.9\""),
        ("images.agent=other-agent", "image: \"other-agent:9.9\""),
        ("images.apifence=other", "image: \"other:9.9\""),
        (
            "server=https://192.0.2.1:6443",
            "value: \"https://192.0.2.1:6443\"",
        ),
        (
            "tlsServerName=api.example.org",
            "value: \"api.example.org\"",
        ),
        ("nodeSelector.zone=a", "zone: a"),
        ("clusterCidrs=@nodes", "value: \"@nodes\""),
        ("configMap=lists", "value: \"apifence-system/lists\""),
        ("resources.agent.limits.memory=11Mi", "memory: 11Mi"),
        ("resources.apifence.limits.memory=12Mi", "memory: 12Mi"),
    ];
    let sets = values.map(|(value, _)| value).join(",");
    tools.helm(&["lint", "--strict", "--set", &sets], chart)?;
    let made = ["template", "apifence", "--namespace", NAMESPACE, "--set"];
    let made = tools.helm(&[&made[..], &[&sets]].concat(), chart)?;
    for (value, line) in values {
        ensure!(
            made.lines().any(|one| one.trim() == line),
            "make the chart: the value `{value}` has no effect"
        );
    }
    let work = cases.first().context("find a case")?;
    let file = work.file.with_file_name("values.helm.yaml");
    fs::write(&file, made).context("write the objects of Helm")?;
    Ok(file)
}

fn is_definition(object: &str) -> bool {
    kind(object) == Some("CustomResourceDefinition")
}

/// Whether `object` is the same in every shape, and in the templates of the chart.
fn is_common(object: &str) -> bool {
    let apart = ["CustomResourceDefinition", "DaemonSet", "Namespace"];
    kind(object).is_some_and(|kind| !apart.contains(&kind))
}

/// The objects of `text` in the namespace of the release.
fn in_release(text: &str) -> String {
    text.replace(NAMESPACE, "{{ .Release.Namespace }}")
}

/// The template `text`, where `condition` holds.
fn only_if(condition: &str, text: &str) -> String {
    format!("{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n")
}

/// The DaemonSet as a template. `resources` names the values with the resources of its containers;
/// those of containers that come after stay.
fn daemon_set(set: &str, resources: &[&str]) -> Result<String> {
    let all_in_one = resources.len() > 1;
    let image = |name: &str| format!("\"{{{{ .Values.images.{name} }}}}:{TAG}\"");
    let set = in_release(set);
    let version = format!("app.kubernetes.io/version: {VERSION}\n");
    let quoted = TAG.replace(" }}", " | quote }}");
    let set = replace(
        &set,
        &version,
        &format!("app.kubernetes.io/version: {quoted}\n"),
        2,
    )?;
    let agents = 1 + usize::from(all_in_one);
    let set = replace(
        &set,
        &format!(" apifence-kube:{VERSION}\n"),
        &format!(" {}\n", image("agent")),
        agents,
    )?;
    let set = replace(
        &set,
        &format!(" apifence:{VERSION}\n"),
        &format!(" {}\n", image("apifence")),
        usize::from(all_in_one),
    )?;
    let set = replace(
        &set,
        "value: https://127.0.0.1:6443\n",
        "value: {{ .Values.server | quote }}\n",
        1,
    )?;
    let set = replace(
        &set,
        "value: kubernetes\n",
        "value: {{ .Values.tlsServerName | quote }}\n",
        1,
    )?;
    let variable = "        - name: NODE_NAME\n";
    let config_map = "        {{- if .Values.configMap }}
        - name: APIFENCE_CONFIG_MAP
          value: \"{{ .Release.Namespace }}/{{ .Values.configMap }}\"
        {{- end }}\n";
    let set = replace(&set, variable, &format!("{config_map}{variable}"), 1)?;
    let variable = "        - name: APIFENCE_METRICS_LISTEN\n";
    let cidrs = "        {{- with .Values.clusterCidrs }}
        - name: APIFENCE_CLUSTER_CIDRS
          value: {{ . | quote }}
        {{- end }}\n";
    let set = replace(
        &set,
        variable,
        &format!("{cidrs}{variable}"),
        usize::from(all_in_one),
    )?;
    let class = "      priorityClassName:";
    let selector = "      {{- with .Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}\n";
    let set = replace(&set, class, &format!("{selector}{class}"), 1)?;
    let mut inside: Vec<_> = resources
        .iter()
        .map(|name| {
            Some(format!(
                "          {{{{- toYaml .Values.resources.{name} | nindent 10 }}}}"
            ))
        })
        .collect();
    // The container that prepares the directory.
    inside.extend(all_in_one.then_some(None));
    replace_inside(&set, "        resources:", &inside)
}

/// The description of the chart.
fn description(header: &str) -> String {
    format!(
        "{header}
apiVersion: v2
name: apifence
description: Carries the authorized ranges of the Kubernetes API to the filter on each node
type: application
version: {VERSION}
appVersion: {VERSION}
"
    )
}
