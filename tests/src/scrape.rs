//! A client of the metrics endpoint, and a reader of its metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{cli::Background, netns::Namespace, wait};

/// The default address of `run`'s endpoint.
pub const ENDPOINT: &str = "127.0.0.1:9464";

/// An answer of the endpoint.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header, lower case.
    pub header: String,
    /// The body.
    pub body: String,
}

/// Connects to the endpoint from inside `namespace`.
pub fn connect(namespace: &Namespace) -> Result<TcpStream> {
    let address: SocketAddr = ENDPOINT.parse().context("the endpoint's address")?;
    let stream = namespace.run(|| TcpStream::connect(address))?;
    stream.set_read_timeout(Some(wait::PATIENCE))?;
    stream.set_write_timeout(Some(wait::PATIENCE))?;
    Ok(stream)
}

/// Sends one request and reads the answer.
pub fn request(namespace: &Namespace, method: &str, path: &str) -> Result<Answer> {
    let mut stream = connect(namespace)?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: node\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (header, body) = text.split_once("\r\n\r\n").context("no end of header")?;
    let status = header.split(' ').nth(1).context("no status")?;
    Ok(Answer {
        status: status.parse()?,
        header: header.to_lowercase(),
        body: body.to_owned(),
    })
}

/// Gets `path`.
pub fn get(namespace: &Namespace, path: &str) -> Result<Answer> {
    request(namespace, "GET", path)
}

/// Waits until `daemon` listens and reports that it is ready.
pub fn ready(namespace: &Namespace, daemon: &mut Background) -> Result<()> {
    daemon.line(|line| line.starts_with("metrics at"))?;
    until_ready(namespace)
}

/// Waits until the daemon in `namespace` reports that it is ready.
pub fn until_ready(namespace: &Namespace) -> Result<()> {
    until_status(namespace, "/readyz", 200)
}

/// Waits until the daemon in `namespace` reports that it is not ready.
pub fn until_not_ready(namespace: &Namespace) -> Result<()> {
    until_status(namespace, "/readyz", 503)
}

/// Waits until `path` is answered with this status code.
fn until_status(namespace: &Namespace, path: &str, status: u16) -> Result<()> {
    wait::until(&format!("`{path}` is answered with {status}"), || {
        Ok(get(namespace, path)?.status == status)
    })
}

/// Scrapes the metrics.
pub fn scrape(namespace: &Namespace) -> Result<Page> {
    let answer = get(namespace, "/metrics")?;
    ensure!(answer.status == 200, "{answer:?}");
    Page::read(answer.body)
}

/// The metrics of one scrape.
#[derive(Debug)]
pub struct Page {
    /// The text of the scrape.
    pub text: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Page {
    fn read(text: String) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines
            .map(|line| sample(line).with_context(|| format!("read `{line}`")))
            .collect::<Result<_>>()?;
        Ok(Self { text, samples })
    }

    /// The sum of all samples of `name` that have these labels; `None` if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found = self.samples.iter().filter(|sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(name, value)| sample.labels.get(*name).is_some_and(|own| own == value))
        });
        found
            .map(|sample| sample.value)
            .reduce(|sum, value| sum + value)
    }

    /// The names of all metrics.
    pub fn names(&self) -> BTreeSet<&str> {
        self.samples
            .iter()
            .map(|sample| sample.name.as_str())
            .collect()
    }

    /// The output of `promtool check metrics`: empty if the metrics are valid.
    pub fn check(&self) -> Result<()> {
        let mut command = Command::new("promtool");
        command
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut promtool = command.spawn().context("start `promtool`")?;
        let mut input = promtool.stdin.take().context("no stdin")?;
        input.write_all(self.text.as_bytes())?;
        drop(input);
        let output = promtool.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(
            output.status.success() && said.is_empty(),
            "`promtool check metrics`: {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&said),
            self.text
        );
        Ok(())
    }
}

/// A line. The labels of apifence hold no quote, comma or brace.
fn sample(line: &str) -> Result<Sample> {
    let (series, value) = line.rsplit_once(' ').context("no value")?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels
        .trim_end_matches('}')
        .split(',')
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (name, value) = label.split_once('=').context("no value of a label")?;
            Ok((name.to_owned(), value.trim_matches('"').to_owned()))
        })
        .collect::<Result<_>>()?;
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse()?,
    })
}
