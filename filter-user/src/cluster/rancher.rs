//! Settings of k3s and RKE2: from the flags in the systemd unit, else from the configuration.

use std::path::PathBuf;

use super::files::{Root, flags, strings};

/// A setting's value, and where it is set.
pub(super) struct Setting {
    /// The file.
    pub(super) path: PathBuf,
    /// The flag or the key, as it is written there.
    pub(super) key: String,
    /// The value; several are separated by commas.
    pub(super) value: String,
}

/// The directory of the configuration of `distribution`, `k3s` or `rke2`.
pub(super) fn folder(distribution: &str) -> PathBuf {
    PathBuf::from(format!("/etc/rancher/{distribution}"))
}

/// The values of the setting `name`: none where it has its default. `None` if that is not known,
/// because a file cannot be parsed.
pub(super) fn setting(root: &Root, distribution: &str, name: &str) -> Option<Vec<Setting>> {
    let flag = format!("--{name}");
    let folder = folder(distribution);
    let mut config = folder.join("config.yaml");
    for unit in [distribution.to_owned(), format!("{distribution}-server")] {
        let Some((path, words)) = root.unit(&format!("{unit}.service")) else {
            continue;
        };
        let named = [flags(&words, "--config"), flags(&words, "-c")].concat();
        config = named.last().map_or(config, PathBuf::from);
        let values = flags(&words, &flag);
        if !values.is_empty() {
            let value = values.join(",");
            let key = flag;
            return Some(vec![Setting { path, key, value }]);
        }
    }
    let more = config.with_added_extension("d");
    let mut paths = vec![config];
    paths.extend(root.files(more, &["yaml", "yml"]));
    // The last file wins; a key with `+` adds to it.
    let mut found = Vec::new();
    let mut is_known = true;
    for path in paths {
        let Some(documents) = root.parsed(&path) else {
            is_known = false;
            continue;
        };
        let value = |key: &str| {
            let value = documents.first()?.get(key)?;
            let number = || value.as_u64().map(|number| number.to_string());
            let value = number().unwrap_or_else(|| strings(value).join(","));
            let (path, key) = (path.clone(), name.to_owned());
            Some(Setting { path, key, value })
        };
        if let Some(value) = value(name) {
            found = vec![value];
        }
        found.extend(value(&format!("{name}+")));
    }
    (is_known || !found.is_empty()).then_some(found)
}
