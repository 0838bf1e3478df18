//! The kinds of `apifence.io/v1alpha1`. They carry lists and reports: no mode, no port and no off
//! switch is in them, so a right to write them does not take the filter off.

#![expect(
    clippy::duplicated_attributes,
    unreachable_pub,
    reason = "each column of kubectl has a name and a type; the derived schemas have private copies"
)]

use jiff::Timestamp;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// The annotation by which an object without ranges is meant to have none.
pub const ALLOW_EMPTY: &str = "apifence.io/allow-empty";

/// The longest name of an object: that of a list.
pub const LONGEST_NAME: usize = 63;

/// The most ranges of one object: about 1 MB of etcd's 1.5.
pub const MOST_RANGES: usize = 4000;

/// Sources that are authorized on the selected nodes. All objects and the lists on the node's disk
/// are in force together.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "apifence.io",
    version = "v1alpha1",
    kind = "AuthorizedRanges",
    plural = "authorizedranges",
    singular = "authorizedranges",
    shortname = "ar",
    category = "apifence",
    status = "AuthorizedRangesStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Sources that are allowed to reach the API server's ports on the selected nodes. All objects and the lists on the node are in force together. A deleted object leaves its list in force: empty it first.",
    printcolumn(name = "Ranges", type_ = "integer", json_path = ".status.ranges"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Programmed\")].message"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(r"self.metadata.name.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')")
        .message("the name is the name of a list: at most 63 of a-z, 0-9 and -")
)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizedRangesSpec {
    /// The sources. If one of them exceeds the bounds of a node, none of them is in force there.
    #[schemars(length(max = 4000))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cidr"]))]
    pub ranges: Vec<Range>,
    /// The labels of the nodes where they are in force. Without it: all nodes with the filter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
}

/// A range of source addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// IPv4 or IPv6, with a prefix length and without host bits.
    #[schemars(length(max = 64))]
    #[x_kube(
        validation = Rule::new("isCIDR(self)")
            .message("not a CIDR: write it like 203.0.113.0/24, or 203.0.113.7/32 for one address"),
        validation = Rule::new("!isCIDR(self) || cidr(self) == cidr(self).masked()")
            .message(Message::Expression("'host bits are set: write ' + string(cidr(self).masked())".to_owned()))
    )]
    pub cidr: String,
    /// A comment for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), pattern(r"^[^\x00-\x1f\x7f]*$"))]
    pub comment: Option<String>,
    /// When the range expires. Each node enforces it, even without the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub expires: Option<String>,
}

/// The schema of a time.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "its schema alone is used")]
struct Time(#[schemars(extend("format" = "date-time"))] String);

/// The state of an object on the nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizedRangesStatus {
    /// The generation that this status describes.
    pub observed_generation: i64,
    /// The number of ranges in it.
    pub ranges: i64,
    /// The number of nodes where it is in force.
    pub nodes: NodeCount,
    /// `Accepted`: the object can be a list. `Programmed`: it is in force on every selected node.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A number of nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeCount {
    /// The nodes that the object selects.
    pub selected: i64,
    /// The nodes that enforce its current generation.
    pub programmed: i64,
    /// Both, as `2/3`.
    pub summary: String,
}

/// A condition, as everywhere in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// One word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// The last change of `status`.
    #[schemars(with = "Time")]
    #[serde(deserialize_with = "any_time")]
    pub last_transition_time: Timestamp,
    /// The generation of the object that it describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The state of the filter on one node, reported by its agent. It has the node's name.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "apifence.io",
    version = "v1alpha1",
    kind = "NodeGuard",
    plural = "nodeguards",
    shortname = "ng",
    category = "apifence",
    status = "NodeGuardStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "The state of the filter on one node. Only its agent writes it: an edit has no effect on the node.",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(
        name = "Guarded",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Guarded\")].status"
    ),
    printcolumn(
        name = "InSync",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"InSync\")].status"
    ),
    printcolumn(name = "Ranges", type_ = "integer", json_path = ".status.ranges"),
    printcolumn(name = "Reported", type_ = "date", json_path = ".status.reported"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"InSync\")].message"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct NodeGuardSpec {}

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeGuardStatus {
    /// The state as in `apifence status`, like `enforcing` or `monitoring`; `unknown` if `apifence
    /// run` does not report.
    pub state: String,
    /// The guarded interfaces.
    pub hooks: Vec<Hook>,
    /// The protected TCP ports.
    pub ports: Vec<u16>,
    /// The number of ranges in force from Kubernetes.
    pub ranges: i64,
    /// The lists from Kubernetes.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub lists: Vec<NodeList>,
    /// The last report of the agent, which reports every half minute.
    #[schemars(with = "Option<Time>")]
    #[serde(default, deserialize_with = "any_time")]
    pub reported: Option<Timestamp>,
    /// The version of the agent.
    pub agent_version: String,
    /// `Guarded`: the filter drops packets of sources that are not listed. `InSync`: the lists in
    /// force are those of the API.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// An interface with the filter on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hook {
    /// Its name.
    pub interface: String,
    /// `native` or `generic`; `none` where no filter is attached.
    pub hook: String,
}

/// A list of Kubernetes on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeList {
    /// The name of the object, or of the ConfigMap's key.
    pub name: String,
    /// The generation of the object from which the list on the node was written; for a ConfigMap,
    /// its resource version.
    pub generation: i64,
    /// The number of its ranges in force.
    pub ranges: i64,
    /// The number of expired ranges.
    pub expired: i64,
    /// Whether this generation is in force.
    pub in_force: bool,
    /// The reason, if not, or if the list differs from the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A time in a status; the default for one that cannot be read, as that of the year 9999 which the
/// API takes. What is said of an object must not make the object unreadable.
fn any_time<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// The definitions of all kinds, as YAML for `kubectl apply`.
///
/// # Errors
/// If they cannot be written as YAML.
pub fn definitions() -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in [AuthorizedRanges::crd(), NodeGuard::crd()] {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use kube::core::cel::Validator;
    use serde_json::{Value, json};

    use super::*;

    /// What an API server with CEL says to an object with these ranges.
    fn faults(name: &str, ranges: &Value) -> Vec<String> {
        let crd = serde_json::to_value(AuthorizedRanges::crd()).expect("JSON");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let object = json!({
            "apiVersion": "apifence.io/v1alpha1",
            "kind": "AuthorizedRanges",
            "metadata": {"name": name},
            "spec": {"ranges": ranges},
        });
        let checked = Validator::new().validate(schema, &object, None);
        let errors = checked.err().into_iter().flatten();
        errors.map(|error| error.to_string()).collect()
    }

    #[test]
    fn the_rules_of_the_schema_name_the_fix() {
        let long = "x".repeat(64);
        for (name, cidr, want) in [
            ("office", "203.0.113.0/24", None),
            ("office", "203.0.113.7/32", None),
            ("office", "2001:db8:aa::/48", None),
            ("office-2", "0.0.0.0/0", None),
            ("office", "203.0.113.9/24", Some("write 203.0.113.0/24")),
            ("office", "2001:db8::1/64", Some("write 2001:db8::/64")),
            (
                "office",
                "203.0.113.7",
                Some("203.0.113.7/32 for one address"),
            ),
            ("office", "203.0.113.0/33", Some("not a CIDR")),
            ("office", "::ffff:203.0.113.7/128", Some("not a CIDR")),
            ("office", "example.org", Some("not a CIDR")),
            ("office.eu", "203.0.113.0/24", Some("at most 63")),
            (&long, "203.0.113.0/24", Some("at most 63")),
        ] {
            let found = faults(name, &json!([{"cidr": cidr}]));
            match want {
                None => assert!(found.is_empty(), "{name}, {cidr}: {found:?}"),
                Some(want) => assert!(
                    found.len() == 1 && found[0].contains(want),
                    "{name}, {cidr}: {found:?}"
                ),
            }
        }
    }

    #[test]
    fn the_definitions_have_columns_conditions_and_no_switch() {
        let text = definitions().expect("YAML");
        for want in [
            "name: authorizedranges.apifence.io",
            "name: nodeguards.apifence.io",
            "scope: Cluster",
            "maxItems: 4000",
            "x-kubernetes-list-type: map",
            "name: Programmed",
            "status: {}",
        ] {
            assert!(text.contains(want), "{want}");
        }
        let crd = serde_json::to_value(AuthorizedRanges::crd()).expect("JSON");
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let spec = crd
            .pointer(spec)
            .and_then(Value::as_object)
            .expect("a spec");
        let fields: Vec<_> = spec.keys().collect();
        assert_eq!(fields, ["nodeSelector", "ranges"]);
    }
}
