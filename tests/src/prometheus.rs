//! A Prometheus server that scrapes nodes, and its HTTP API.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{cli::Killed, netns::Namespace, wait};

/// Its address, in the namespace that it runs in.
const LISTEN: &str = "127.0.0.1:9090";

/// A target of a scrape job.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The label `job`.
    pub job: &'static str,
    /// The label `cluster`.
    pub cluster: &'static str,
    /// The label `instance`.
    pub instance: &'static str,
    /// The address and port of its metrics.
    pub address: &'static str,
}

/// A running Prometheus. It ends when dropped, and its data with it.
#[derive(Debug)]
pub struct Prometheus {
    namespace: Namespace,
    _server: Killed,
    scratch: TempDir,
}

impl Prometheus {
    /// Starts one inside `namespace` that scrapes `targets` each second, and that evaluates the
    /// rules in the file `rules` as often.
    pub fn start(namespace: &Namespace, targets: &[Target], rules: &Path) -> Result<Self> {
        let scratch = TempDir::with_prefix("prometheus-").context("make a scratch directory")?;
        let config = scratch.path().join("prometheus.yml");
        fs::write(&config, configuration(targets, rules))?;
        let log = fs::File::create(scratch.path().join("log"))?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}/data",
                scratch.path().display()
            ))
            .arg(format!("--web.listen-address={LISTEN}"))
            .arg("--log.level=warn")
            .current_dir(scratch.path())
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let server = Killed(namespace.spawn(&mut command)?);
        let prometheus = Self {
            namespace: namespace.try_clone()?,
            _server: server,
            scratch,
        };
        wait::until("Prometheus is ready", || {
            Ok(prometheus
                .answer("/-/ready")
                .is_ok_and(|(status, _)| status == 200))
        })
        .with_context(|| prometheus.log())?;
        Ok(prometheus)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// The value of `expression` now: a list of series.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        self.series("/api/v1/query", &[("query", expression)])
    }

    /// The values of `expression` in the last `seconds`, at each of them.
    pub fn query_range(&self, expression: &str, seconds: u64) -> Result<Vec<Value>> {
        let now = self.query("vector(time())")?;
        let now = now.first().and_then(|series| series["value"][0].as_f64());
        let now = now.context("no time")?;
        let (start, end) = ((now - seconds as f64).to_string(), now.to_string());
        let parameters = [
            ("query", expression),
            ("start", start.as_str()),
            ("end", end.as_str()),
            ("step", "1"),
        ];
        self.series("/api/v1/query_range", &parameters)
    }

    /// The values of `label` in the series that match `selector`.
    pub fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let path = format!("/api/v1/label/{label}/values");
        let values = self.get(&path, &[("match[]", selector)])?;
        Ok(serde_json::from_value(values)?)
    }

    /// The rules, with their state.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let groups = self.get("/api/v1/rules", &[])?;
        let groups = groups["groups"].as_array().context("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        Ok(rules.flatten().cloned().collect())
    }

    fn series(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Value>> {
        match self.get(path, parameters)?["result"].take() {
            Value::Array(series) => Ok(series),
            other => bail!("no series: {other}"),
        }
    }

    /// The field `data` of an answer of the API.
    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let parameters: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        let (status, body) = self.answer(&format!("{path}?{}", parameters.join("&")))?;
        let mut answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        ensure!(status == 200, "{path} {parameters:?}: {status}: {answer}");
        Ok(answer["data"].take())
    }

    /// Status and body of the answer to GET `path`.
    fn answer(&self, path: &str) -> Result<(u16, String)> {
        let address: SocketAddr = LISTEN.parse().context("the address of Prometheus")?;
        let within = Duration::from_secs(10);
        let connect = || TcpStream::connect_timeout(&address, within);
        let mut stream = self.namespace.run(connect)?;
        stream.set_read_timeout(Some(within))?;
        stream.set_write_timeout(Some(within))?;
        // With version 1.0 the answer is not in chunks.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {LISTEN}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (header, body) = text.split_once("\r\n\r\n").context("no end of header")?;
        let status = header.split(' ').nth(1).context("no status")?;
        Ok((status.parse()?, body.to_owned()))
    }
}

fn configuration(targets: &[Target], rules: &Path) -> String {
    let jobs: Vec<Value> = targets
        .iter()
        .map(|target| {
            let labels = serde_json::json!({
                "job": target.job,
                "cluster": target.cluster,
                "instance": target.instance,
            });
            serde_json::json!({
                // Two jobs in the file must not have one name; the label is what counts.
                "job_name": target.instance,
                "static_configs": [{ "targets": [target.address], "labels": labels }],
            })
        })
        .collect();
    // JSON is YAML.
    serde_json::json!({
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
        },
        "rule_files": [rules],
        "scrape_configs": jobs,
    })
    .to_string()
}

/// Escapes a parameter of a URL.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
