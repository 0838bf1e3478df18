//! Objects that a lab makes in the API.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Lab, agent, api_server::LOOPBACK};

/// The directory of the manifests.
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes");
/// The namespace of the agent.
const NAMESPACE: &str = "apifence-system";
/// Its service account.
const ACCOUNT: &str = "apifence-kube";

impl Lab {
    /// Makes the Node object `name` with these addresses and pod ranges, as a kubelet does when it
    /// joins.
    pub fn add_node(&self, name: &str, addresses: &[&str], pods: &[&str]) -> Result<()> {
        let mut node = node(name, addresses);
        if let Some(first) = pods.first() {
            node["spec"] = json!({"podCIDR": first, "podCIDRs": pods});
        }
        let mut client = self.control_planes[0].api.local_client()?;
        client.create("/api/v1/nodes", &node).map(drop)
    }

    /// Gives a Node object other addresses.
    pub fn set_addresses(&self, name: &str, addresses: &[&str]) -> Result<()> {
        let mut client = self.control_planes[0].api.local_client()?;
        let path = format!("/api/v1/nodes/{name}");
        let mut now = client.get(&path)?.succeeded()?.json()?;
        now["status"]["addresses"] = node(name, addresses)["status"]["addresses"].take();
        client.replace(&format!("{path}/status"), &now).map(drop)
    }

    /// Deletes a Node object.
    pub fn delete_node(&self, name: &str) -> Result<()> {
        let mut client = self.control_planes[0].api.local_client()?;
        client.delete(&format!("/api/v1/nodes/{name}"))
    }

    /// A token of a service account, for an hour.
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let mut client = self.control_planes[0].api.local_client()?;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({"spec": {"expirationSeconds": 3600}});
        let made = client.create(&path, &request)?;
        let token = made["status"]["token"].as_str().map(str::to_owned);
        token.with_context(|| format!("no token in {made:#}"))
    }

    /// Makes the types of the agent's objects.
    pub fn install_types(&self) -> Result<()> {
        // This server does not know the rules in them, and leaves them out.
        let first = &self.control_planes[0].machine;
        let apply = ["apply", "--validate=false", "-f", "-"];
        self.kubectl_from(first, LOOPBACK, &apply, &agent::crds()?)?
            .succeeded()?;
        let wait = ["wait", "--for=condition=Established", "crd", "--all"];
        self.kubectl(&wait).map(drop)
    }

    /// Applies a file of `deploy/kubernetes`.
    pub fn apply_file(&self, name: &str) -> Result<()> {
        let path = Path::new(MANIFESTS).join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read `{name}`"))?;
        self.apply(&text).map(drop)
    }

    /// Makes the account of the agents, with the rights that users give it, and gives its token to
    /// those of all control planes. None is started.
    pub fn authorize_agents(&self) -> Result<()> {
        for file in ["base/namespace.yaml", "base/rbac.yaml"] {
            self.apply_file(file)?;
        }
        let token = self.token(NAMESPACE, ACCOUNT)?;
        for control_plane in &self.control_planes {
            control_plane
                .agent
                .authorize(&token, &self.keys.authority())?;
        }
        Ok(())
    }
}

fn node(name: &str, addresses: &[&str]) -> Value {
    let address = |address: &&str| json!({"type": "InternalIP", "address": address});
    let addresses: Vec<Value> = addresses.iter().map(address).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": addresses},
    })
}
