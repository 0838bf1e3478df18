//! The recipes of `deploy/feeds` against a server with files of the published shapes: nothing wrong
//! gets in, and the last good list stays.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::{
    cli::{Apifence, binary},
    netns::Namespace,
    scrape::ready,
    site::{Family, INTERFACE, Site, UNLISTED},
    tls::{Identity, Page},
};

/// The unprivileged user.
const NOBODY: u32 = 65534;
const PORT: u16 = 8443;

/// A recipe, the published file in small, and the list that comes of it.
struct Recipe {
    name: &'static str,
    body: &'static str,
    list: &'static str,
}

const RECIPES: [Recipe; 6] = [
    Recipe {
        name: "github-hooks",
        body: r#"{"verifiable_password_authentication":false,"hooks":["192.30.252.0/23","192.30.254.0/23","2a0a:a440::/29"],"web":["203.0.113.0/24"],"actions":["4.148.0.0/16"]}"#,
        list: "192.30.252.0/22\n2a0a:a440::/29\n",
    },
    Recipe {
        name: "github-actions",
        body: r#"{"hooks":["192.30.252.0/22"],"actions":["4.148.0.0/17","4.148.128.0/17","2a01:111::/32"],"actions_macos":["13.105.117.0/28"]}"#,
        list: "4.148.0.0/16\n2a01:111::/32\n",
    },
    Recipe {
        name: "aws",
        body: r#"{"syncToken":"1","createDate":"2026-01-01-00-00-00","prefixes":[{"ip_prefix":"3.127.74.0/23","region":"eu-central-1","service":"CODEBUILD","network_border_group":"eu-central-1"},{"ip_prefix":"52.94.0.0/22","region":"us-east-1","service":"CODEBUILD","network_border_group":"us-east-1"}],"ipv6_prefixes":[{"ipv6_prefix":"2a05:d014::/36","region":"eu-central-1","service":"CODEBUILD","network_border_group":"eu-central-1"}]}"#,
        list: "3.127.74.0/23\n2a05:d014::/36\n",
    },
    Recipe {
        name: "azure",
        body: r#"{"changeNumber":1,"cloud":"Public","values":[{"name":"AzureCloud","properties":{"addressPrefixes":["20.0.0.0/8"]}},{"name":"AzureDevOps","id":"AzureDevOps","properties":{"region":"","systemService":"AzureDevOps","addressPrefixes":["20.37.158.0/23","2603:1030::/48"]}}]}"#,
        list: "20.37.158.0/23\n2603:1030::/48\n",
    },
    Recipe {
        name: "gcp",
        body: r#"{"syncToken":"1","creationTime":"2026-01-01T00:00:00","prefixes":[{"ipv4Prefix":"34.89.128.0/17","service":"Google Cloud","scope":"europe-west3"},{"ipv6Prefix":"2600:1900:40d0::/44","service":"Google Cloud","scope":"europe-west3"},{"ipv4Prefix":"34.1.208.0/20","service":"Google Cloud","scope":"africa-south1"}]}"#,
        list: "34.89.128.0/17\n2600:1900:40d0::/44\n",
    },
    Recipe {
        name: "cloudflare",
        body: "173.245.48.0/20\n103.21.244.0/22\n2400:cb00::/32",
        list: "103.21.244.0/22\n173.245.48.0/20\n2400:cb00::/32\n",
    },
];

/// A directory with programs, recipes and the state of a feed, and the server.
struct Feed<'a> {
    node: &'a Namespace,
    filter: &'a Apifence,
    folder: TempDir,
    page: Arc<Mutex<Page>>,
}

impl<'a> Feed<'a> {
    fn new(node: &'a Namespace, filter: &'a Apifence) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let ranges = filter.ranges_file().parent().context("in a directory")?;
        fs::set_permissions(ranges, Permissions::from_mode(0o755))?;
        let identity = Identity::new(&["127.0.0.1".parse()?])?;
        let page = Arc::new(Mutex::new(Page {
            status: "200 OK",
            body: String::new(),
            cut: false,
        }));
        identity.serve_page(node, PORT, page.clone())?;
        fs::write(folder.path().join("authority.pem"), identity.authority())?;
        for name in ["bin", "feeds"] {
            fs::create_dir(folder.path().join(name))?;
        }
        // The directory of the build may be closed to other users.
        fs::copy(binary(), folder.path().join("bin/apifence"))?;
        Ok(Self {
            node,
            filter,
            folder,
            page,
        })
    }

    /// The directory that the user of the feed `name` may write.
    fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("state-{name}"))
    }

    /// Installs the recipe `name` with `change`, and the link in `ranges.d`.
    fn install(&self, name: &str, change: impl Fn(&str) -> String) -> Result<()> {
        let recipe = deploy().join(format!("recipes/{name}.conf"));
        let text = fs::read_to_string(&recipe).with_context(|| recipe.display().to_string())?;
        let conf = self.folder.path().join(format!("feeds/{name}.conf"));
        fs::write(conf, change(&text))?;
        let state = self.state(name);
        fs::create_dir(&state)?;
        chown(&state, Some(NOBODY), Some(NOBODY))?;
        let link = self.filter.list_file(name);
        fs::create_dir_all(link.parent().context("in a directory")?)?;
        symlink(state.join("list"), link)?;
        Ok(())
    }

    /// Runs the script as its user.
    fn fetch(&self, name: &str) -> Result<Output> {
        let mut command = Command::new("setpriv");
        let user = NOBODY.to_string();
        command
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .arg("--no-new-privs")
            .arg(deploy().join("apifence-feed"))
            .arg(name)
            .env_clear()
            .env(
                "PATH",
                format!(
                    "{}:/usr/sbin:/usr/bin:/sbin:/bin",
                    self.folder.path().join("bin").display()
                ),
            )
            .env("STATE_DIRECTORY", self.state(name))
            .env("APIFENCE_FEEDS", self.folder.path().join("feeds"))
            .env("CURL_CA_BUNDLE", self.folder.path().join("authority.pem"))
            .env("APIFENCE_RANGES_FILE", self.filter.ranges_file())
            .env("APIFENCE_BPFFS", self.filter.bpffs())
            .env("APIFENCE_STATE_DIR", self.filter.state_dir());
        self.node.output(&mut command)
    }

    fn serve(&self, page: Page) {
        *self.page.lock().expect("no holder panics") = page;
    }

    fn list(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.filter.list_file(name)).context("read the list")
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/feeds")
}

fn page(body: impl Into<String>) -> Page {
    Page {
        status: "200 OK",
        body: body.into(),
        cut: false,
    }
}

/// The recipe with the test's server in place of the published one, once.
fn local(text: &str) -> String {
    let lines = text.lines().map(|line| match line.starts_with("URL=") {
        true => format!("URL=https://127.0.0.1:{PORT}/list\n"),
        false => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn what_is_wrong_with_a_feed_leaves_its_last_good_list() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let feed = Feed::new(&site.node, &filter)?;
    for Recipe { name, body, list } in RECIPES {
        feed.install(name, local)?;
        feed.serve(page(body));
        let ran = feed.fetch(name)?;
        ensure!(ran.status.success(), "{name}: {}", said(&ran));
        ensure!(feed.list(name)? == list, "{name}: {}", feed.list(name)?);
        let ten_times: String = (0..40).map(|n| format!("198.18.{n}.1/32\n")).collect();
        let longer = match body.starts_with('{') {
            true => ten_times_longer(name)?,
            false => format!("{body}\n{ten_times}"),
        };
        for (what, wrong) in [
            (
                "cut connection",
                Page {
                    cut: true,
                    ..page(format!("{body} "))
                },
            ),
            ("cut text", page(&body[..body.len() - 12])),
            (
                "error",
                Page {
                    status: "503 Service Unavailable",
                    ..page("oops")
                },
            ),
            (
                "page of an error",
                page("<html><body>Please log in</body></html>"),
            ),
            ("empty", page("")),
            ("blank", page("\n")),
            (
                "of another shape",
                page(r#"{"message":"API rate limit exceeded"}"#),
            ),
            ("ten times longer", page(longer)),
        ] {
            feed.serve(wrong);
            let ran = feed.fetch(name)?;
            ensure!(!ran.status.success(), "{name}, {what}: taken");
            ensure!(
                feed.list(name)? == list,
                "{name}, {what}: {}",
                feed.list(name)?
            );
        }
        feed.serve(page(body));
        let ran = feed.fetch(name)?;
        ensure!(
            ran.status.success() && said(&ran).contains("nothing changed"),
            "{name}: {}",
            said(&ran)
        );
        let left = fs::read_dir(feed.state(name))?.flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        ensure!(
            left.iter()
                .all(|name| !name.to_string_lossy().starts_with(".new")),
            "{left:?}"
        );
    }
    Ok(())
}

/// A file of the feed's shape with forty more ranges.
fn ten_times_longer(name: &str) -> Result<String> {
    let ranges: Vec<String> = (0..40).map(|n| format!("198.18.{n}.1/32")).collect();
    let text = |all: serde_json::Value| all.to_string();
    Ok(match name {
        "github-hooks" => text(serde_json::json!({ "hooks": ranges })),
        "github-actions" => text(serde_json::json!({ "actions": ranges })),
        "aws" => {
            let prefix = |range: &String| serde_json::json!({ "ip_prefix": range, "region": "eu-central-1", "service": "CODEBUILD" });
            let prefixes: Vec<_> = ranges.iter().map(prefix).collect();
            text(serde_json::json!({ "prefixes": prefixes, "ipv6_prefixes": [] }))
        }
        "azure" => text(
            serde_json::json!({ "values": [{ "name": "AzureDevOps", "properties": { "addressPrefixes": ranges } }] }),
        ),
        _ => {
            let prefix = |range: &String| serde_json::json!({ "ipv4Prefix": range, "scope": "europe-west3" });
            let prefixes: Vec<_> = ranges.iter().map(prefix).collect();
            text(serde_json::json!({ "prefixes": prefixes }))
        }
    })
}

fn said(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

#[test]
fn a_feed_comes_into_force_by_the_rights_of_its_user_alone() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(6443)?;
    filter.write_list("198.51.100.0/24\n2001:db8:aa::/48\n")?;
    filter.write_config("[lists.cloudflare]\nwidest = { ipv4 = 24, ipv6 = 48 }\n")?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    ready(&site.node, &mut daemon)?;
    let feed = Feed::new(&site.node, &filter)?;
    feed.install("cloudflare", local)?;
    feed.serve(page("203.0.113.0/24\n"));
    let ran = feed.fetch("cloudflare")?;
    ensure!(ran.status.success(), "{}", said(&ran));
    filter.until_authorized(UNLISTED[0], true)?;
    site.unlisted_gets_in(Family::V4, 6443)?;
    feed.serve(page("0.0.0.0/0\n"));
    ensure!(!feed.fetch("cloudflare")?.status.success());
    // Text that is written past the command meets the bounds in `run`.
    fs::write(feed.state("cloudflare").join("list"), "0.0.0.0/0\n")?;
    daemon.line(|line| line.contains("wider than /24"))?;
    ensure!(filter.run(&["check", "192.0.2.1"])?.code == Some(1));
    site.unlisted_gets_in(Family::V4, 6443).map(drop)
}

#[test]
fn the_addresses_of_a_host_name_expire() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let feed = Feed::new(&site.node, &filter)?;
    feed.install("host", |text| {
        text.replace("office.example.org", "198.51.100.77")
    })?;
    let ran = feed.fetch("host")?;
    ensure!(ran.status.success(), "{}", said(&ran));
    let list = feed.list("host")?;
    ensure!(list.starts_with("198.51.100.77 expires=2"), "{list}");
    let conf = feed.folder.path().join("feeds/host.conf");
    fs::write(conf, "HOST=no-such-host.invalid\n")?;
    ensure!(!feed.fetch("host")?.status.success());
    ensure!(feed.list("host")? == list);
    Ok(())
}
